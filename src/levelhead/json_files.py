"""JSON that somebody else may have written, read within limits.

    read_json(path, CheckpointError)     a file
    parse_json(text, "file, line 3", PromptError)     a text

What comes back is at most `MAX_DEPTH` deep and holds only what every later step can take: finite
numbers within 64 bits and text that is valid UTF-8. It does not know which fields a file should
have.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from levelhead.errors import UserError
from levelhead.plain_text import read_utf8

MAX_BYTES = 64_000_000
MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1


def read_json(
    path: Path,
    error: type[UserError],
    *,
    max_bytes: int = MAX_BYTES,
    finite: bool = True,
    unique: bool = False,
) -> Any:
    """The content of a UTF-8 JSON file.

    Args:
        error: what to raise.
        max_bytes: of the file.
        finite: refuse NaN and infinity, which Python reads and JSON does not have.
        unique: refuse an object with a key twice, of which Python keeps the last.

    Raises:
        UserError: of the kind `error`: the file cannot be read, is larger or deeper than the
            limit, is not JSON, or holds a number or text out of range.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)  # a pipe does not tell its size
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {problem}") from problem
    if len(content) > max_bytes:
        raise error(f"{path} has more than {max_bytes:,} bytes, the limit for such a file")
    text = read_utf8(content, str(path), error)
    return parse_json(text, str(path), error, finite=finite, unique=unique)


def parse_json(
    text: str, source: str, error: type[UserError], *, finite: bool = True, unique: bool = False
) -> Any:
    """The value of a JSON text; `source` names it in errors. Limits and errors as `read_json`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise error(f"{source}: the key {counts.most_common(1)[0][0]!r} appears more than once")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once if unique else None)
    except RecursionError as problem:
        raise error(f"{source} nests deeper than {MAX_DEPTH} levels, the limit") from problem
    except ValueError as problem:  # of JSON, or of a number with thousands of digits
        raise error(f"{source} is damaged: not valid JSON: {problem}") from problem
    _check(value, source, error, finite)
    return value


def _check(value: Any, source: str, error: type[UserError], finite: bool) -> None:
    """Not recursive: the depth is what is to be limited."""
    level = [value]
    depth = 0
    while level:
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key in one:
                    _check_text(key, source, error)
                deeper.extend(one.values())
            elif isinstance(one, list):
                deeper.extend(one)
            elif isinstance(one, str):
                _check_text(one, source, error)
            elif isinstance(one, float):
                if finite and not math.isfinite(one):
                    raise error(f"{source} holds the number {one}, which JSON does not have")
            elif isinstance(one, int) and not -MAX_INTEGER <= one <= MAX_INTEGER:
                raise error(f"{source} holds a whole number of more than 64 bits")
        level = deeper
        depth += 1
        if depth > MAX_DEPTH and level:
            raise error(f"{source} nests deeper than {MAX_DEPTH} levels, the limit")


def _check_text(text: str, source: str, error: type[UserError]) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise error(
            f"{source} holds a lone surrogate ({text[problem.start]!a}), which is not text"
        ) from None
