"""Text that somebody else wrote: the encoding of a file, and which characters can be seen.

It does not know what a text says, nor where it is shown.
"""

from __future__ import annotations

import unicodedata

from levelhead.errors import UserError

LOOKED_AT = 4096
"""Bytes by which an encoding is guessed."""
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BINARY = (
    b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"%PDF", b"\x89PNG", b"\xd0\xcf\x11\xe0", b"GGUF",
    b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PAR1",
)  # fmt: skip
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Format characters that words need: the two joiners (emoji, Persian, Indic scripts), and the signs
# that stand under numbers and so can be seen (Arabic, Syriac, Kaithi). All others either reorder
# what is read (bidi controls) or cannot be seen.
_SHOWN = frozenset(
    "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
    "\U000110bd\U000110cd"
)


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen, or reorders what stands around it; joiners do not."""
    return character not in _SHOWN and unicodedata.category(character) in _HIDDEN


def read_utf8(content: bytes, name: str, error: type[UserError]) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        name: of the file, for errors.
        error: what to raise.

    Raises:
        UserError: of the kind `error`: it is not UTF-8; the message says where, and which encoding
            it looks like.
    """
    try:
        text = content.decode("utf-8-sig")
        found, where = _wide(content), "two bytes per letter"
    except UnicodeDecodeError as problem:
        found = encoding_of(content)
        where = f"byte {content[problem.start]:#04x} at offset {problem.start:,}"
        raise error(f"{name} is not UTF-8: {where}; {_advice(found)}") from None
    if found is not None:
        raise error(f"{name} is not UTF-8: {where}; {_advice(found)}")
    return text


def encoding_of(content: bytes) -> str | None:
    """The encoding that bytes which are not UTF-8 look like; "": one without marks; None: no text.

    "UTF-8" where nearly all of it is. Windows-1252 stands for text that is mostly ASCII.
    """
    if (found := _wide(content)) is not None:
        return found
    head = content[:LOOKED_AT]
    control = sum(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in head)
    if content.startswith(_BINARY) or control > len(head) / 100:
        return None
    letters_of_utf8 = head.decode("utf-8", "replace")
    broken = letters_of_utf8.count("\ufffd")
    if sum(letter > "\x7f" for letter in letters_of_utf8) > 8 * broken:
        return "UTF-8"
    other = sum(byte >= 128 for byte in head)
    letters = other + sum(chr(byte).isalpha() for byte in head if byte < 128)
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:  # five bytes are no letter there
        return ""
    return "Windows-1252" if 3 * other <= letters else ""


def _wide(content: bytes) -> str | None:
    """UTF-16 or UTF-32, by the mark in front, or by the zeros of every other byte."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    head = content[:LOOKED_AT]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half >= 4 and max(even, odd) > 0.4 * half and min(even, odd) < 0.05 * half:
        return "UTF-16"
    return None


def _advice(encoding: str | None) -> str:
    if encoding is None:
        return "it does not look like text"
    if encoding == "UTF-8":
        return "the rest is UTF-8: the file is damaged or cut off there"
    if not encoding:
        return (
            "it looks like an older encoding of its script (GBK, Shift-JIS, Windows-1251 and so "
            "on): save it as UTF-8"
        )
    return (
        f"it looks like {encoding}: save it as UTF-8 (in a spreadsheet: CSV UTF-8), or "
        f"iconv -f {encoding} -t UTF-8 FILE > NEW"
    )
