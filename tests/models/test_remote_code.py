"""The code that a checkpoint carries: levelhead's own, only what its family needs, marked."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from levelhead.models import slicing
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.remote_code import modelling_code
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.testing import TINY_FAMILIES

HEADS = {0: [0, 4], 1: range(6), 2: [1, 2, 3, 5]}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_code_is_complete_and_needs_nothing_else(family, fresh):
    code = modelling_code(fresh(family))
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name]
            root = str(names[0]).partition(".")[0]
            assert root in {
                "__future__",
                "collections",
                "dataclasses",
                "torch",
                "transformers",
                "typing",
            }
    assert len(code.splitlines()) < 500
    space: dict[str, object] = {"__name__": __name__}
    exec(compile(code, "modeling_levelhead.py", "exec"), space)  # noqa: S102 - that is the claim
    assert space["architecture_of"](None).model_types == (
        ("gemma3",) if family == "gemma3" else (family,)
    )


def test_the_code_is_that_of_the_package_and_no_more(fresh):
    code = modelling_code(fresh("llama"))
    source = ast.parse(Path(str(slicing.__file__)).read_text())
    texts = {n.name: ast.unparse(n) for n in source.body if isinstance(n, ast.FunctionDef)}
    own = {n.name: ast.unparse(n) for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)}
    shared = texts.keys() & own.keys()
    assert {"slice_separate", "plan_key_values", "keep_outputs", "rows_of"} <= shared
    assert all(own[name] == texts[name] for name in shared)
    assert "slice_gpt2" not in own
    assert "slice_gpt2" in modelling_code(fresh("gpt2"))


def test_the_folder_says_that_it_runs_code(fresh, tmp_path):
    model = fresh("llama")
    prune_heads(model, HEADS)
    folder = save_pruned(model, tmp_path / "m", "remote-code")
    config = json.loads((folder / "config.json").read_text())
    assert config["levelhead_format"] == "remote-code"
    assert config["auto_map"] == {"AutoModelForCausalLM": "modeling_levelhead.LlamaForCausalLM"}
    notice = (folder / "REMOTE_CODE.md").read_text()
    assert notice.startswith("# This model runs code from its own folder")
    plain = save_pruned(model, tmp_path / "plain")
    assert not list(plain.glob("*.py"))
    assert "auto_map" not in json.loads((plain / "config.json").read_text())


def test_where_levelhead_is_no_code_of_the_folder_runs(fresh, tmp_path, logits):
    model = fresh("llama")
    prune_heads(model, HEADS)
    folder = save_pruned(model, tmp_path / "m", "remote-code")
    (folder / "levelhead.json").unlink()
    (folder / "modeling_levelhead.py").write_text("raise RuntimeError('was run')")
    loaded = load(folder)
    assert type(loaded) is type(model)
    assert (logits(loaded) == logits(model)).all()


SCRIPT = """
import sys
sys.modules["levelhead"] = None
from transformers import AutoModelForCausalLM as auto
from safetensors.torch import load_file, save_file
import torch
folder, again = sys.argv[1:]
try:
    auto.from_pretrained(folder)  # not allowed: the stock class, which must not fill in anything
    print("LOADED")
except RuntimeError as error:
    print("refused" if "ismatched" in str(error) else error)
model = auto.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
model.save_pretrained(again)
second = auto.from_pretrained(again, trust_remote_code=True)
print(second.dtype, second.num_parameters() == model.num_parameters())
tensors = load_file(again + "/model.safetensors")
del tensors["model.norm.weight"]
save_file(tensors, again + "/model.safetensors", {"format": "pt"})
try:
    auto.from_pretrained(again, trust_remote_code=True)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_saved_again_without_levelhead_and_never_random(fresh, tmp_path):
    model = fresh("llama")
    prune_heads(model, HEADS)
    folder = save_pruned(model, tmp_path / "m", "remote-code")
    call = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "again")]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "refused",
        "torch.bfloat16 True",
        "tensors are missing: ['model.norm.weight']",
    ]
    assert removed_heads(load(folder)) == removed_heads(model)


def test_both_at_once(fresh, tmp_path, logits, monkeypatch):
    """levelhead is there and the folder's code is allowed: heads go once."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    monkeypatch.syspath_prepend(str(tmp_path / "c"))
    model = fresh("gpt2")
    prune_heads(model, HEADS)
    folder = save_pruned(model, tmp_path / "m", "remote-code")
    for loaded in (
        load(folder, trust_remote_code=True),
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True),
    ):
        assert type(loaded).__module__.endswith("modeling_levelhead")
        assert (logits(loaded) == logits(model)).all()
