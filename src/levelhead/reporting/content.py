"""What the report says, apart from how it looks: sections of text, plots and tables.

The page and the Markdown file are both made of these. Strings are as they came, not escaped: that
is the renderer's task. Numbers are text already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from levelhead.reporting.summary import Cell

Figure = dict[str, Any]
Value = str | Cell
Fold = Literal["", "open", "closed"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers stand to the right."""

    label: str
    number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell per column; the first names the row. `main`: to look at first."""

    cells: tuple[Value, ...]
    main: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows under a heading of their own (none: an empty title)."""

    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    """(name of a style, sentence)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Groups of rows; `fold`: whether the page shows it behind its title, and opened or not."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    title: str = ""
    note: str = ""
    fold: Fold = ""
    compact: bool = False

    @classmethod
    def of(
        cls, columns: Iterable[Column], rows: Iterable[Iterable[Value]], **settings: Any
    ) -> Table:
        """A table of one group without a title."""
        group = Group(rows=tuple(Row(cells=tuple(row)) for row in rows))
        return cls(columns=tuple(columns), groups=(group,), **settings)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(group.rows) for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure and the words around it; `key` names it on the page and as a file."""

    key: str
    title: str
    caption: str
    figure: Figure
    legend: tuple[tuple[str, str], ...] = ()
    """(name of the style of a mark, what it stands for)"""
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One model's continuation and how toxic the classifier finds it (empty: not known)."""

    text: str
    toxicity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Continuations of one prompt by both models, in the order they were sampled."""

    prompt: str
    about: str
    base: tuple[Text, ...] = ()
    pruned: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands below it, in this order. `key` is the page's anchor."""

    key: str
    title: str
    intro: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    more_plots: tuple[Plot, ...] = ()
    """Shown behind `more_title`."""
    more_title: str = ""
    tables: tuple[Table, ...] = ()
    examples: tuple[Example, ...] = ()
    """Generated text, which the page shows behind a warning."""
    points: tuple[tuple[str, str], ...] = ()
    """A list of (first words, rest)."""
    commands: bool = False
    """Whether the rest of each point is a command to copy."""
    points_title: str = ""
    """Where there is one, the page shows the list behind it."""
    explorer: Any = None
    """Data of the page's interactive head map; only the page can show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    model: str
    subtitle: str
    headline: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    command: str
    options: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    first: Any = None
    """The page's first screen (`first_screen.FirstScreen`); None: nothing was measured."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for machines (`report.json`), as the files of the run have it."""

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot, in the order of the sections."""
        return tuple(p for section in self.sections for p in (*section.plots, *section.more_plots))


def numeric(*labels: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(label, number=True) for label in labels)
