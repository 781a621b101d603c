"""Heads removed together against the sum of their single effects (interactions.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelhead.reporting.content import Section


def interactions(data: Mapping[str, Any] | None) -> Section | None:
    """Placeholder."""
    return None
