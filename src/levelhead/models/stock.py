"""Save a model whose weights alone were changed: shapes and code are stock, so any engine loads it.

Knows nothing of what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from levelhead.models.checksums import write_manifest
from levelhead.models.folders import new_folder
from levelhead.models.read_back import check_saved


def save_stock(
    model: PreTrainedModel,
    path: str | Path,
    form: str,
    tokenizer: PreTrainedTokenizerBase | None,
    about: Mapping[str, Any],
    *,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Save model and tokenizer, all or nothing, with what was done in `levelhead.json`.

    Args:
        form: of `levelhead.json`.
        about: what it holds besides: keywords of `write_manifest`.
        overwrite: replace `path` where it holds a model already.
        options: of transformers' `save_pretrained`.

    Raises:
        CheckpointError: a folder in the way, a full disk, or files that do not load as this model.
    """
    target = Path(path)
    with new_folder(target, overwrite) as folder:
        model.save_pretrained(folder, **options)
        check_saved(folder, model, target)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        write_manifest(folder, form, {}, **about)
    return target
