"""Run by test_formats.py in a process of its own: load checkpoints as users do, print differences.

Arguments: a JSON file of jobs [{"format", "folder", "expected", "wrong"}, ...], in which stock
formats come first; the place for transformers' copies of remote code. Prints a JSON list of
[difference from the expected logits, difference from the wrong ones], relative to the largest.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["HF_MODULES_CACHE"] = sys.argv[2]
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    sys.modules["levelhead"] = None  # type: ignore[assignment]  # as where it is not installed

    def opened(form: str, folder: str) -> Any:
        if form in ("zeroed", "uniform"):
            return AutoModelForCausalLM.from_pretrained(folder)
        if form == "remote-code":
            return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        if sys.modules["levelhead"] is None:
            del sys.modules["levelhead"]
        import levelhead

        if form == "compact":
            return AutoModelForCausalLM.from_pretrained(folder)
        return levelhead.load(folder)

    found = []
    for job in json.loads(Path(sys.argv[1]).read_text()):
        with torch.no_grad():
            model = opened(job["format"], job["folder"])
            known = load_file(job["expected"])
            inputs = {"input_ids": known["ids"], "attention_mask": known["mask"]}
            logits = model(**inputs).logits[known["mask"].bool()]
        scale = known["expected"].abs().max()
        found.append(
            [float((logits - known[k]).abs().max() / scale) for k in ("expected", "wrong")]
        )
    print(json.dumps(found))
