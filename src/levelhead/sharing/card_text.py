"""Text from outside in a model card, as Markdown that shows it and nothing else."""

from __future__ import annotations

import re

from levelhead.reporting.escape import visible

SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~&$]|:(?=//)|(?<=www)\.|^[#+\-=]|(?<=^\d)[.)]|@")
"""What Markdown reads as markup, links that it makes by itself and mentions among it."""


def md(text: object) -> str:
    """Text from outside as Markdown that shows it and nothing else, on one line."""
    return SPECIAL.sub(r"\\\g<0>", visible(str(text)).strip())


def code(text: object) -> str:
    """Text from outside as inline code."""
    plain = visible(str(text))
    ticks = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence, space = "`" * (ticks + 1), " " if ticks else ""
    return f"{fence}{space}{plain}{space}{fence}"
