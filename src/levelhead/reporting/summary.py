"""What is in the JSON files of a run, whatever may be missing there; numbers and rows as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import numbers
from levelhead.verdict_words import Look

UNRELIABLE = (
    "The head scores were not reliable with this budget: another seed may well rank, and prune, "
    "other heads. More samples or more prompts help."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and, below or beside it, its 95% interval (empty: none)."""

    text: str = ""
    interval: str = ""

    def __bool__(self) -> bool:
        return self.text not in ("", numbers.MISSING)


NOTHING = Cell()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of both models; `difference` is pruned minus base."""

    label: str
    short: str
    """The label where there is little room."""
    base: Cell = NOTHING
    pruned: Cell = NOTHING
    difference: Cell = NOTHING
    main: bool = False
    """The row to look at first: what decides the verdict, and what it costs."""
    detail: bool = False
    """To stand below the others, or behind a title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one axis, or (axis None) of the model as a whole."""

    axis: str | None
    rows: tuple[Row, ...]
    verdict: str = ""
    """A sentence."""
    kind: Look = "undecided"
    """How the verdict looks."""
    notes: tuple[tuple[str, str], ...] = ()
    """(how it looks, sentence): what bears on the verdict."""
    budget: str = ""

    @property
    def first(self) -> tuple[Row, ...]:
        """The rows that lead."""
        return tuple(row for row in self.rows if not row.detail)

    @property
    def details(self) -> tuple[Row, ...]:
        """The others."""
        return tuple(row for row in self.rows if row.detail)


def mapping(data: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys, or an empty one where any of it is missing."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def texts(data: Any) -> list[str]:
    """A list of strings, or an empty one for anything else."""
    return [str(item) for item in data] if isinstance(data, list | tuple) else []


def word(value: Any) -> str:
    """A name as text; empty where there is none."""
    return "" if value is None else str(value)


def people(name: str) -> str:
    """A name of an axis or a subgroup as people write it: "gender and sex"."""
    return name.replace("_", " ").strip() or name


def records(data: Any, key: str) -> list[Mapping[str, Any]]:
    """The mappings in a list at a key; what else is there is left out."""
    found = mapping(data).get(key)
    listed = found if isinstance(found, list | tuple) else ()
    return [one for one in listed if isinstance(one, Mapping)]


def started_by(config: Mapping[str, Any]) -> list[str]:
    """The first words of the command that starts a run like this one."""
    model = config.get("model")
    return ["levelhead", "run", str(model)] if model else ["levelhead", "demo"]


def warnings(*sources: Mapping[str, Any], reliable: Any = None) -> list[str]:
    """The "warnings" of all sources, each once; first of all that scores were unreliable."""
    found = [UNRELIABLE] if reliable is False else []
    for source in sources:
        found += texts(source.get("warnings"))
    return list(dict.fromkeys(found))
