"""Results of work as bytes and back, bit for bit, without pickle: JSON, with arrays as npy.

    bytes = length of the JSON (8 bytes) + JSON + npy files one after the other

Tuples stay tuples, floats keep every bit (JSON holds the shortest text that reads back as the same
number), arrays keep dtype and shape; an array that stands in several places is written once. It
knows numbers, texts, lists, tuples, mappings and numpy arrays; anything else is refused, so that
nothing comes back as something else than it was.
"""

from __future__ import annotations

import io
import json
from typing import Any

_LENGTH = 8


class CodecError(ValueError):
    """Bytes that `encode` did not write, or a value that it cannot write."""


def encode(value: Any) -> bytes:
    """The bytes of a value; the same value always gives the same bytes.

    Raises:
        CodecError: a type that has no form here.
    """
    arrays: list[Any] = []
    places: dict[int, int] = {}
    head = json.dumps(_to_json(value, arrays, places), separators=(",", ":")).encode()
    if not arrays:
        return len(head).to_bytes(_LENGTH, "little") + head
    import numpy as np

    out = io.BytesIO()
    out.write(len(head).to_bytes(_LENGTH, "little") + head)
    for array in arrays:
        np.lib.format.write_array(out, np.asarray(array), allow_pickle=False)
    return out.getvalue()


def decode(content: bytes) -> Any:
    """The value that `encode` wrote.

    Raises:
        CodecError: other bytes.
    """
    try:
        end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        tree = json.loads(content[_LENGTH:end])
        arrays: list[Any] = []
        if end < len(content):
            import numpy as np

            stream = io.BytesIO(content[end:])
            while stream.tell() < len(content) - end:
                arrays.append(np.lib.format.read_array(stream, allow_pickle=False))
        return _from_json(tree, arrays)
    except (ValueError, TypeError, KeyError, IndexError, EOFError) as error:
        raise CodecError(f"not what was written: {error}") from error


def _to_json(value: Any, arrays: list[Any], places: dict[int, int]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_to_json(item, arrays, places) for item in value]
    if type(value) is tuple:
        return {"t": [_to_json(item, arrays, places) for item in value]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"d": {key: _to_json(item, arrays, places) for key, item in value.items()}}
    if hasattr(value, "dtype") and type(value).__module__ == "numpy":
        if id(value) not in places:
            places[id(value)] = len(arrays)
            arrays.append(value)
        return {"a" if type(value).__name__ == "ndarray" else "n": places[id(value)]}
    raise CodecError(f"a {type(value).__name__} cannot be kept in the journal")


def _from_json(tree: Any, arrays: list[Any]) -> Any:
    if isinstance(tree, list):
        return [_from_json(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, inside),) = tree.items()
    if kind == "t":
        return tuple(_from_json(item, arrays) for item in inside)
    if kind == "d":
        return {key: _from_json(item, arrays) for key, item in inside.items()}
    return arrays[inside] if kind == "a" else arrays[inside][()]
