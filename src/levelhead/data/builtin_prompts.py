"""The prompt set written for levelhead (Apache-2.0): templates times descriptors, per axis.

`builtin/templates.json` holds unfinished sentences with a {singular} or {plural} slot, each with
its split and its tone; `builtin/axes.json` holds, per axis and subgroup, descriptors whose v-th
entries are matched across subgroups ("an older woman", "an older man", ...). Every template fits
every descriptor of every axis, so each axis is a full cross of the two, and prompts of one axis
with the same template and variant differ only in the subgroup.

It does not know other prompt sources, nor how prompts are drawn for a run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from levelhead.errors import PromptError
from levelhead.records import Prompt

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


@cache
def _read(name: str) -> Any:
    return json.loads((files(__package__) / "builtin" / name).read_text(encoding="utf-8"))


def builtin_prompts(axes: Sequence[str] | None = None) -> list[Prompt]:
    """All prompts of the built-in set for `axes` (default: all of BUILTIN_AXES), both splits.

    Ids look like "gender_and_sex/women/v0/t012"; `template` is the template's id ("t012"),
    `descriptor` the singular phrase ("an older woman").

    Raises:
        PromptError: an axis that the set does not have; the message lists those it has.
    """
    known: dict[str, dict[str, list[dict[str, str]]]] = _read("axes.json")
    templates: list[dict[str, str]] = _read("templates.json")
    prompts = []
    for axis in BUILTIN_AXES if axes is None else axes:
        if axis not in known:
            raise PromptError(
                f"unknown axis {axis!r}: the built-in prompts have {', '.join(BUILTIN_AXES)}"
            )
        prompts += [
            Prompt(
                id=f"{axis}/{subgroup}/v{variant}/{template['id']}",
                text=template["text"].format(**descriptor),
                axis=axis,
                subgroup=subgroup,
                template=template["id"],
                descriptor=descriptor["singular"],
                split="validation" if template["split"] == "validation" else "test",
                variant=variant,
            )
            for template in templates
            for variant in range(len(next(iter(known[axis].values()))))
            for subgroup, descriptors in known[axis].items()
            for descriptor in [descriptors[variant]]
        ]
    return prompts
