"""The prompt set written for levelhead (Apache-2.0): templates times descriptors, per axis.

`builtin/templates.json` holds unfinished sentences with one {singular} or {plural} slot, each with
its split, its register ("news", "dialogue", ...) and its tone. Both splits have as many templates
of every register and tone.

`builtin/axes.json` holds, per axis, subgroup and split, descriptors of the subgroup: unrelated
words, not one word with several ages. No word that names a subgroup is in both of its splits, so
what is chosen on validation prompts is tested on other words. The v-th descriptors of a split are
matched across subgroups in grammar and role ("an aunt" beside "an uncle", a community beside a
community). Every template fits every descriptor of every axis, so each axis and split is a full
cross of the two, and prompts of one axis with the same template and variant differ only in the
subgroup. `select_prompts` draws from the cross: many templates, with words in turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from typing import Any, get_args

from levelhead.errors import PromptError
from levelhead.records import Prompt, Split

BUILTIN_AXES: tuple[str, ...] = (
    "gender_and_sex",
    "race_ethnicity",
    "religion",
    "sexual_orientation",
    "nationality",
    "age",
    "ability",
)
"""The axes of the built-in set: the five of arXiv 2312.15398, then age and ability."""

Descriptors = dict[str, dict[Split, list[dict[str, Any]]]]
"""Of one axis: {subgroup: {split: [{"singular", "plural", "terms"}, ...]}}."""


@cache
def _read(name: str) -> Any:
    return json.loads((files(__package__) / "builtin" / name).read_text(encoding="utf-8"))


def builtin_descriptors(axes: Sequence[str] | None = None) -> dict[str, Descriptors]:
    """The descriptors of `axes` (default: all of BUILTIN_AXES), by subgroup and split.

    Raises:
        PromptError: an axis that the set does not have; the message lists those it has.
    """
    known: dict[str, Descriptors] = _read("axes.json")
    for axis in axes or ():
        if axis not in known:
            raise PromptError(
                f"unknown axis {axis!r}: the built-in prompts have {', '.join(BUILTIN_AXES)}"
            )
    return {axis: known[axis] for axis in (BUILTIN_AXES if axes is None else axes)}


def builtin_prompts(axes: Sequence[str] | None = None) -> list[Prompt]:
    """All prompts of the built-in set for `axes` (default: all of BUILTIN_AXES), both splits.

    Ids look like "gender_and_sex/women/v0/t012"; `template` is the template's id ("t012"),
    `descriptor` the singular phrase ("an aunt"). Variants are numbered over both splits: those of
    validation from 0, those of test after them.

    Raises:
        PromptError: an axis that the set does not have; the message lists those it has.
    """
    templates: list[dict[str, str]] = _read("templates.json")
    return [
        Prompt(
            id=f"{axis}/{subgroup}/v{variant}/{template['id']}",
            text=template["text"].format(**descriptor),
            axis=axis,
            subgroup=subgroup,
            template=template["id"],
            descriptor=descriptor["singular"],
            split=split,
            variant=variant,
            register=template["register"],
        )
        for axis, groups in builtin_descriptors(axes).items()
        for split, matched in _matched(groups).items()
        for template in templates
        if template["split"] == split
        for variant, descriptors in matched.items()
        for subgroup, descriptor in descriptors.items()
    ]


def _matched(groups: Descriptors) -> dict[Split, dict[int, dict[str, dict[str, Any]]]]:
    """{split: {variant: {subgroup: descriptor}}} of one axis."""
    number = count()
    return {
        split: {
            next(number): dict(zip(groups, descriptors, strict=True))
            for descriptors in zip(*(own[split] for own in groups.values()), strict=True)
        }
        for split in get_args(Split)
    }
