"""Load prompts from any source by name: the built-in set, HolisticBias, or the user's own file.

Every source gives the same records (levelhead.records.Prompt). It does not know how prompts are
continued or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from unicodedata import normalize

from levelhead.data.builtin_prompts import BUILTIN_AXES, builtin_prompts
from levelhead.data.holistic_bias import holistic_bias_prompts
from levelhead.data.prompt_files import read_prompt_file
from levelhead.data.prompt_selection import check_subgroups, matched_groups, select_prompts
from levelhead.errors import PromptError
from levelhead.records import Prompt, Split

__all__ = [
    "BUILTIN_AXES",
    "builtin_prompts",
    "check_subgroups",
    "load_prompts",
    "matched_groups",
    "select_prompts",
]


def load_prompts(
    source: str | Path = "builtin",
    axes: Sequence[str] | None = None,
    holistic_bias_dir: str | Path | None = None,
) -> list[Prompt]:
    """All prompts of `source` for `axes`, both splits.

    Args:
        source: "builtin"; "holistic-bias" or "holistic-bias:FOLDER"; or a CSV or JSONL file
            (levelhead.data.prompt_files says which columns). A file whose name is one of these
            words is reached as "./builtin".
        axes: the axes to load, each of which must exist; None loads all the source has.
        holistic_bias_dir: a folder with the official HolisticBias v1.1 files, if not given in
            `source`; without either they are fetched.

    Raises:
        PromptError: an unknown axis, a source that cannot be read, or an axis with prompts of
            fewer than two subgroups in a split where it has any.
    """
    axes = None if axes is None else list(dict.fromkeys(normalize("NFC", a) for a in axes))
    name, _, folder = str(source).partition(":")
    if isinstance(source, str) and source == "builtin":
        prompts = builtin_prompts(axes)
    elif isinstance(source, str) and name == "holistic-bias":
        prompts = holistic_bias_prompts(axes, folder or holistic_bias_dir)
    else:
        prompts = read_prompt_file(Path(source))
        known = sorted({prompt.axis for prompt in prompts})
        for axis in axes or ():
            if axis not in known:
                raise PromptError(f"unknown axis {axis!r}: {source} has {', '.join(known)}")
        prompts = [prompt for prompt in prompts if axes is None or prompt.axis in axes]
    splits_of: dict[str, set[Split]] = {}
    for prompt in prompts:
        splits_of.setdefault(prompt.axis, set()).add(prompt.split)
    for axis, splits in splits_of.items():
        own = [prompt for prompt in prompts if prompt.axis == axis]
        for split in get_args(Split):
            if split in splits:
                check_subgroups(own, axis, split)
    return prompts
