"""Compact checkpoints that bring the code to load them, for users who do not install levelhead.

The folder holds `modeling_levelhead.py`, named by `auto_map` in config.json: a subclass of the
stock class that removes heads as it is made. It loads with `trust_remote_code=True` only, and runs
code from the folder: that is why it is opt-in. Without that flag the folder is a compact
checkpoint. The code is cut out of levelhead's own modules (source_bundle.py), for one family.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from levelhead import __version__
from levelhead.models.architectures import Architecture, architecture_of
from levelhead.models.removed_heads import HEADS_ONLY_VERSION
from levelhead.models.source_bundle import bundle
from levelhead.models.surgery import remove_heads

CODE = "modeling_levelhead.py"
NOTICE = "REMOTE_CODE.md"
MARK = "levelhead_format"

_HEAD = '''"""{family} without the attention heads that config.json names.

Written by levelhead {version} beside the weights of a pruned model, so that
AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True) loads it without levelhead.
All but the last class is levelhead's own code (Apache-2.0), as far as this family needs it.
"""

from __future__ import annotations

from transformers import {stock} as Stock
'''
_TAIL = '''ARCHITECTURE = {architecture}


def architecture_of(model: Any) -> Architecture:
    return ARCHITECTURE


class {stock}(Stock):
    """The stock class with fewer attention heads; everything else, the name too, is stock."""

    levelhead_prunes_itself = True

    @classmethod
    def is_custom_code(cls) -> bool:
        return False  # transformers then translates the names of stored tensors, as for stock

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        stored = config.quantization_config
        stored = stored if isinstance(stored, dict) else stored.to_dict()
        if stored["format_version"] > {format_version}:
            raise ValueError("config.json is of a newer format than this file")
        remove_heads(self, {{int(layer): tuple(gone) for layer, gone in stored["heads"].items()}})

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if report["missing_keys"]:  # stock loading would fill them with random numbers
            raise ValueError(f"tensors are missing: {{sorted(report['missing_keys'])}}")
        return (model, report) if output_loading_info else model
'''
_NOTICE = """# This model runs code from its own folder

Attention heads of it are gone, a different number in each layer. Stock transformers cannot say that
in config.json, so `{code}` in this folder does. It runs only if you allow it:

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

Read `{code}` first: it is the part of levelhead {version} that this family needs. With levelhead
installed no code of the folder has to run: `levelhead.load(FOLDER)`.
"""


def write_remote_code(model: PreTrainedModel, folder: Path, **options: Any) -> None:
    """Save a pruned model with the code to load it; `options` as for `save_pretrained`."""
    model.save_pretrained(folder, **options)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    module = CODE.removesuffix(".py")
    where = f"{module}.{type(model).__name__}"
    config |= {"auto_map": {"AutoModelForCausalLM": where}, MARK: "remote-code"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CODE).write_text(modelling_code(model), encoding="utf-8")
    notice = _NOTICE.format(code=CODE, version=__version__)
    (folder / NOTICE).write_text(notice, encoding="utf-8")


def modelling_code(model: PreTrainedModel) -> str:
    """The text of the modelling file for this model's family; it does not depend on the heads."""
    family, stock = architecture_of(model), type(model).__name__
    values = {spec.name: getattr(family, spec.name) for spec in fields(family)}
    functions = [value for value in values.values() if callable(value)]
    arguments = ",\n".join(f"    {name}={_literal(value)}" for name, value in values.items())
    code = bundle([*functions, remove_heads, Architecture], given=["architecture_of"])
    head = _HEAD.format(family=family.name, version=__version__, stock=stock)
    tail = _TAIL.format(
        architecture=f"Architecture(\n{arguments},\n)",
        stock=stock,
        format_version=HEADS_ONLY_VERSION,
    )
    return f"{head}{code}\n\n\n{tail}"


def _literal(value: Any) -> str:
    return str(value.__name__) if callable(value) else repr(value)
