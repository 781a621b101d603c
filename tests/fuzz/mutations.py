"""Strategies that damage a valid input: a few changes each, most of it still makes sense."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

TOKENS = (
    b"\0", b"\n", b"\r", b",", b'"', b"{", b"}", b"[", b"]", b":", b"-1", b"1e999", b"NaN", b"null",
    b"true", b"9" * 30, b"9" * 5000, b"\xff\xfe", b"\xef\xbb\xbf", b"\\ud800", b"\xe2\x80\xae",
    b"\x1b[2J", b"../../etc/passwd", b"=cmd|' /C calc'!A0", b"[" * 200, b"[" * 20000, b"%s%n",
    b'{"a":' * 3000, b"a" * 20000,
)  # fmt: skip
"""What breaks parsers: ends of strings and lines, numbers without end, depth, encodings."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -1e308, float("nan"),
    float("inf"), "", " ", "x", "../../x", "\x1b[31mx", "\u202e", "\ud800", "a" * 5000, [], {},
    [[]], [None], [0, 0], ["x", "x"], {"": {}}, {"value": "x"}, [[0, 0]], "0-9", "1e9",
)  # fmt: skip

_place = st.floats(0, 1, exclude_max=True)
_change = st.tuples(
    st.sampled_from(("cut", "drop", "repeat", "insert", "flip")),
    _place,
    _place,
    st.sampled_from(TOKENS),
)


def mutated_bytes(seed: bytes) -> st.SearchStrategy[bytes]:
    """`seed` with one to four pieces cut, dropped, repeated, inserted or flipped."""
    return st.lists(_change, min_size=1, max_size=4).map(lambda changes: _apply(seed, changes))


def _apply(content: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, start, length, token in changes:
        first = int(start * len(content))
        last = first + 1 + int(length**4 * len(content))  # mostly short pieces
        if kind == "cut":
            content = content[:first]
        elif kind == "drop":
            content = content[:first] + content[last:]
        elif kind == "repeat":
            content = content[:last] + content[first:last] + content[last:]
        elif kind == "insert":
            content = content[:first] + token + content[first:]
        elif first < len(content):
            bit = 1 << int(length * 8)
            content = content[:first] + bytes([content[first] ^ bit]) + content[first + 1 :]
    return content


_edit = st.tuples(
    st.sampled_from(("replace", "delete", "rename", "copy", "nest")),
    _place,
    st.sampled_from(VALUES),
)


def mutated_json(seed: Any) -> st.SearchStrategy[bytes]:
    """`seed` as JSON with one to three values replaced, deleted, renamed, copied or nested."""
    text = json.dumps(seed)

    def edited(edits: list[tuple[str, float, Any]]) -> bytes:
        value = json.loads(text)
        for kind, place, new in edits:
            value = _edit_one(value, kind, place, deepcopy(new))
        return json.dumps(value).encode()

    edits = st.lists(_edit, min_size=1, max_size=3)
    return st.one_of(edits.map(edited), edits.map(edited), mutated_bytes(text.encode()))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                todo.append(one[key])
    return found


def _edit_one(value: Any, kind: str, place: float, new: Any) -> Any:
    places = _places(value) if isinstance(value, dict | list) else []
    if not places or (kind == "replace" and place < 0.01):
        return new
    box, key = places[int(place * len(places))]
    if kind == "delete":
        del box[key]
    elif kind == "rename" and isinstance(box, dict):
        box[f"{key}x" if place < 0.5 else str(new)[:50]] = box.pop(key)
    elif kind == "copy":
        other, where = places[int(place * 7919) % len(places)]
        box[key] = json.loads(json.dumps(other[where])) if _is_there(other, where) else new
    elif kind == "nest":
        for _ in range(1 + int(place * 100)):
            box[key] = [box[key]]
    else:
        box[key] = new
    return value


def _is_there(box: Any, key: Any) -> bool:
    """Whether an earlier edit left this place."""
    return key in box if isinstance(box, dict) else key < len(box)
