"""The user's own prompts, from a CSV or JSONL file.

Columns: text, axis, subgroup; optional template, descriptor, split ("validation" or "test"),
id, variant, register. Others are ignored. Texts may hold any characters; white space around them is
dropped, since a trailing space changes what a tokenizer makes of the end.

Defaults for what is missing:

- split: halves by template, within each axis, so that validation and test share none; rows without
  a template are halved within their axis and subgroup, by a hash of their text. The same file
  always splits the same way. Rows that name a split keep it, a template goes with its rows that
  do, and the templates that are left make up for them.
- template: each row is a template of its own (nothing is matched).
- variant: the row's place among those of its axis, subgroup and template, from 0.
- descriptor: the subgroup. id: axis/subgroup/row. register: none ("news", "dialogue": draws of a
  part of the prompts take registers in turn).

It does not know what a sensible prompt is, nor which axis a run wants.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from levelhead.data.splits import halve, halve_within
from levelhead.data.table_files import Row, read_rows
from levelhead.errors import PromptError
from levelhead.plain_text import is_hidden
from levelhead.records import Prompt, Split

REQUIRED = ("text", "axis", "subgroup")
OPTIONAL = ("template", "descriptor", "split", "id", "variant", "register")
MAX_TEXT_CHARACTERS = 10_000
MAX_NAME_CHARACTERS = 200
MAX_LABEL_CHARACTERS = 1_000
"""Of template, descriptor, id and register."""
MAX_VARIANT = 1_000_000


@dataclass(slots=True)
class _Draft:
    """A row that has passed its own checks; `split` and `variant` may still be open."""

    row: Row
    text: str
    axis: str
    subgroup: str
    template: str
    descriptor: str
    id: str
    split: Split | None
    variant: int | None
    register: str


def read_prompt_file(path: Path) -> list[Prompt]:
    """Read every prompt of a .csv or .jsonl file, in the file's order.

    Raises:
        PromptError: the file cannot be read, is too large, lacks a column, or holds a bad or
            repeated value; the message names file, line, column and value.
    """
    drafts = [_draft(row) for row in read_rows(path, REQUIRED, OPTIONAL)]
    if not drafts:
        raise PromptError(f"{path} holds no prompts")
    _check_templates(drafts)
    splits = _splits(drafts)
    places: Counter[tuple[str, str, str]] = Counter()
    prompts = []
    seen: dict[str, Row] = {}
    for draft, split in zip(drafts, splits, strict=True):
        if draft.id in seen:
            raise draft.row.error("id", f"is also the id of line {seen[draft.id].line}")
        seen[draft.id] = draft.row
        cell = (draft.axis, draft.subgroup, draft.template)
        prompts.append(
            Prompt(
                id=draft.id,
                text=draft.text,
                axis=draft.axis,
                subgroup=draft.subgroup,
                template=draft.template,
                descriptor=draft.descriptor,
                split=split,
                variant=places[cell] if draft.variant is None else draft.variant,
                register=draft.register,
            )
        )
        places[cell] += 1
    return prompts


def _draft(row: Row) -> _Draft:
    text = row.values["text"].strip()
    if not text:
        raise row.error("text", "is empty")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise row.error(
            "text", f"has {len(text):,} characters; {MAX_TEXT_CHARACTERS:,} are allowed"
        )
    axis, subgroup = _name(row, "axis"), _name(row, "subgroup")
    for column in ("template", "descriptor", "id", "register"):
        if (length := len(row.values.get(column, ""))) > MAX_LABEL_CHARACTERS:
            raise row.error(
                column, f"has {length:,} characters; {MAX_LABEL_CHARACTERS:,} are allowed"
            )
    return _Draft(
        row=row,
        text=text,
        axis=axis,
        subgroup=subgroup,
        template=normalize("NFC", row.values.get("template", "").strip()),
        descriptor=row.values.get("descriptor", "").strip() or subgroup,
        id=row.values.get("id", "").strip() or f"{axis}/{subgroup}/{row.number}",
        split=_split(row),
        variant=_variant(row),
        register=normalize("NFC", row.values.get("register", "").strip()),
    )


def _name(row: Row, column: str) -> str:
    """An axis or subgroup: it ends up in column names and reports, so it must print."""
    # One name in two Unicode spellings (a letter with its accent, or a letter and an accent).
    name = normalize("NFC", row.values[column].strip())
    if not name.strip("\u200c\u200d"):
        raise row.error(column, "is empty")
    if len(name) > MAX_NAME_CHARACTERS:
        raise row.error(column, f"must be at most {MAX_NAME_CHARACTERS} characters long")
    if hidden := [character for character in name if is_hidden(character)]:
        raise row.error(
            column, f"must be printable, but holds U+{ord(hidden[0]):04X}, which cannot be seen"
        )
    return name


def _split(row: Row) -> Split | None:
    match row.values.get("split", "").strip().lower():
        case "":
            return None
        case "validation":
            return "validation"
        case "test":
            return "test"
    raise row.error("split", 'must be "validation", "test" or empty')


def _variant(row: Row) -> int | None:
    value = row.values.get("variant", "").strip()
    if not value:
        return None
    # isdecimal() alone takes digits of every script, and int() refuses 4,300 of them.
    if value.isascii() and value.isdecimal() and len(value) < 10 and int(value) <= MAX_VARIANT:
        return int(value)
    raise row.error("variant", f"must be a whole number from 0 to {MAX_VARIANT:,}")


def _check_templates(drafts: list[_Draft]) -> None:
    """A template must not be in both splits: what is tested would have been selected on."""
    named: dict[str, _Draft] = {}
    for draft in drafts:
        if draft.template and draft.split:
            first = named.setdefault(draft.template, draft)
            if first.split != draft.split:
                raise draft.row.error(
                    "template",
                    f"is in split {draft.split} here and in {first.split} in line "
                    f"{first.row.line}; validation and test must not share a template",
                )


def _splits(drafts: list[_Draft]) -> list[Split]:
    """The split of every draft; also names the templates of rows that have none."""
    fixed = {d.template: d.split for d in drafts if d.template and d.split}
    within: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for draft in drafts:
        if draft.template:
            within[draft.template] |= {(draft.axis,), (draft.axis, draft.subgroup)}
    by_template = halve_within({name: frozenset(own) for name, own in within.items()}, fixed)
    loose: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for draft in drafts:
        if not draft.template and draft.split is None:
            loose[draft.axis, draft.subgroup][draft.text] = 1
    by_text = {cell: halve(texts) for cell, texts in loose.items()}
    splits: list[Split] = []
    for draft in drafts:
        split = draft.split or by_template.get(draft.template)
        splits.append(split or by_text[draft.axis, draft.subgroup][draft.text])
        draft.template = draft.template or f"row {draft.row.number}"
    return splits
