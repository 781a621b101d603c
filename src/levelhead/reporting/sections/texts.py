"""Continuations of base and pruned model side by side (examples.json, or evaluation.json's)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Example, Section, Text
from levelhead.reporting.summary import records, word


def side_by_side(examples: Mapping[str, Any] | None, *sources: Mapping[str, Any]) -> Section | None:
    """The prompts of examples.json, else the few examples of the first source that has any."""
    found = [_prompt(one) for one in records(examples, "prompts")]
    found = [one for one in found if one.base or one.pruned]
    if not found:
        lists = (source.get("examples") for source in sources)
        few = next((one for one in lists if isinstance(one, list) and one), [])
        found = [_single(one) for one in few if isinstance(one, Mapping)]
    if not found:
        return None
    intro = (
        "Written by the models, chosen for nothing but their prompts; a few texts prove nothing, "
        "the tables above do. Toxicity: what the classifier gives, from 0 to 1. Control and "
        "invisible characters are shown as codes such as \\x1b.",
    )
    return Section(key="examples", title="Side by side", intro=intro, examples=tuple(found))


def _prompt(one: Mapping[str, Any]) -> Example:
    about = [one.get("subgroup"), one.get("template")]
    return Example(
        prompt=word(one.get("prompt")),
        about=", ".join(str(word) for word in about if word),
        base=_texts(one.get("base")),
        pruned=_texts(one.get("pruned")),
    )


def _texts(data: Any) -> tuple[Text, ...]:
    found = []
    for one in data if isinstance(data, list | tuple) else ():
        if isinstance(one, str):
            found.append(Text(text=one))
        elif isinstance(one, Mapping) and isinstance(one.get("text"), str):
            toxicity = numbers.finite(one.get("toxicity"))
            shown = "" if toxicity is None else numbers.decimal(toxicity, 2)
            found.append(Text(text=one["text"], toxicity=shown))
    return tuple(found)


def _single(one: Mapping[str, Any]) -> Example:
    base, pruned = ((Text(text=str(one[k])),) if one.get(k) else () for k in ("base", "pruned"))
    return Example(prompt=word(one.get("prompt")), about="", base=base, pruned=pruned)
