"""Make text from outside harmless to show: generated text, model names, names of prompt files.

A model writes whatever it likes, and so does the author of a prompt file. `visible` is for every
place (page and terminal), the other two for the places on the page that have a syntax of their
own. HTML itself is escaped by the template engine, not here.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from levelhead.plain_text import is_hidden

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str, *, multiline: bool = False) -> str:
    r"""Write control, escape, bidi and invisible characters as what they are: `\x1b`, `\u202e`.

    A terminal then obeys no escape sequence in the text and the text cannot reorder or hide what
    stands around it. Lone surrogates become `\ud800` too, so that the result is valid UTF-8. All
    else is kept, and applying it twice changes nothing more.

    Args:
        text: any text.
        multiline: keep line feeds and tabs as they are; for texts shown as a block of their own.
    """
    return "".join(_visible_character(c, multiline) for c in text)


def _visible_character(character: str, multiline: bool) -> str:
    if not is_hidden(character):
        return character
    if multiline and character in "\n\t":
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plot_text(text: str) -> str:
    """Text for a label of a plot; plotly reads `<b>`, `<a href=...>` and `&lt;` as markup."""
    return (
        visible(text)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("$", "&#36;")  # two of them would start a formula where MathJax is loaded
    )


def spreadsheet_safe(cell: Any) -> Any:
    """A cell of a table for spreadsheets, which run text that starts like a formula.

    Such text gets an apostrophe in front, as spreadsheets themselves write it; numbers stay
    numbers. For tables that only programs read, such as scores.csv, numbers are all there is.
    """
    if not isinstance(cell, str):
        return cell
    seen = "".join(c for c in cell if unicodedata.category(c) not in ("Cf", "Zs"))
    return f"'{cell}" if seen.startswith(_FORMULA) else cell


def script_json(data: Any) -> str:
    """JSON to stand inside a script element: no `<`, `>` or `&` and nothing but ASCII.

    Raises:
        ValueError: a number that is not finite; JSON has none.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Outside of strings JSON has none of the three, so these escapes stand inside strings.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
