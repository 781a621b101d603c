"""Rows of text from a CSV or JSONL file that someone else wrote, with errors that name the place.

It does not know what the columns mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from levelhead.errors import PromptError
from levelhead.json_files import parse_json
from levelhead.plain_text import read_utf8

MAX_BYTES = 50_000_000
MAX_ROWS = 1_000_000
MAX_FIELD_CHARACTERS = 100_000
"""Of any column that is read; `levelhead.data.prompt_files` allows each of its own less."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column (missing optional ones are absent), and where it stands."""

    path: Path
    line: int
    """Of the file, from 1; the last line of a CSV row that spans several."""
    number: int
    """Of the row, from 1, the CSV header not counted."""
    values: dict[str, str]

    def error(self, column: str, problem: str) -> PromptError:
        """The error for a bad value: file, line, column, value and what is wrong with it."""
        value = self.values.get(column, "")
        shown = value if len(value) <= 60 else value[:60] + "…"
        return PromptError(f"{self.path}, line {self.line}, column {column}: {shown!r} {problem}")


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    """The rows of a UTF-8 .csv, .jsonl or .ndjson file, restricted to the columns asked for.

    CSV headers are matched without regard to case and surrounding space; blank lines are skipped.

    Raises:
        PromptError: another kind of file, not UTF-8, more than MAX_BYTES, MAX_ROWS or
            MAX_FIELD_CHARACTERS, a required column that is missing, or a row that is malformed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise PromptError(
            f"unknown prompt source {str(path)!r}: give builtin, holistic-bias, "
            "holistic-bias:FOLDER, or a .csv or .jsonl file"
        )
    text = _read_text(path)
    rows = _csv_rows if suffix == ".csv" else _jsonl_rows
    for row in rows(path, text, required, optional):
        if row.number > MAX_ROWS:
            raise PromptError(f"{path} has more than {MAX_ROWS:,} rows; split it")
        for column, value in row.values.items():
            if len(value) > MAX_FIELD_CHARACTERS:
                raise row.error(
                    column,
                    f"has {len(value):,} characters; {MAX_FIELD_CHARACTERS:,} are allowed",
                )
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise row.error(column, "holds a lone surrogate, which is not text") from None
        yield row


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PromptError(f"{path} has {size:,} bytes; {MAX_BYTES:,} are allowed")
        content = path.read_bytes()
    except FileNotFoundError:
        raise PromptError(f"no such prompt file: {path}") from None
    except (OSError, ValueError) as error:
        raise PromptError(f"cannot read {path}: {error}") from error
    return read_utf8(content, str(path), PromptError)


def _csv_rows(
    path: Path, text: str, required: Sequence[str], optional: Sequence[str]
) -> Iterator[Row]:
    # newline="" leaves line ends inside quoted fields to the csv module.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(path, header, required, optional)
        number = 0
        for fields in reader:
            if not fields:
                continue
            number += 1
            if len(fields) != len(header):
                raise PromptError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields where the header has "
                    f"{len(header)}; quote fields that hold commas or line ends"
                )
            cells = zip(header, fields, strict=True)
            values = {name: value for name, value in cells if name in (*required, *optional)}
            yield Row(path, reader.line_num, number, values)
    except csv.Error as error:
        raise PromptError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error


def _check_header(
    path: Path, header: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    for name in required:
        if name not in header:
            raise PromptError(
                f"{path}, line 1: no column {name!r} among {', '.join(header) or 'none'}; "
                f"{', '.join(required)} are needed"
            )
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise PromptError(f"{path}, line 1: column {name!r} appears more than once")


def _jsonl_rows(
    path: Path, text: str, required: Sequence[str], optional: Sequence[str]
) -> Iterator[Row]:
    number = 0
    # Not splitlines(): JSON strings may hold U+2028 and other characters it would split at.
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        number += 1
        where = f"{path}, line {line_number}"
        entry = parse_json(line, where, PromptError, finite=False, unique=True)
        if not isinstance(entry, dict):
            raise PromptError(f"{where}: expected an object, found {line.strip()[:60]!r}")
        values = {}
        for name in (*required, *optional):
            value = entry.get(name)
            if name == "variant" and type(value) is int:
                value = str(value) if abs(value) < 10**12 else "too large"
            if isinstance(value, str):
                values[name] = value
            elif value is not None:
                raise PromptError(f"{where}, column {name}: expected text, found {value!r:.60}")
            elif name in required:
                raise PromptError(f"{where}: no column {name!r}; {', '.join(required)} are needed")
        yield Row(path, line_number, number, values)
