"""Where levelhead keeps what it fetched or converted. Knows nothing of what is kept there."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The cache folder: $LEVELHEAD_CACHE if set, else the platform's; it may not exist yet."""
    chosen = os.environ.get("LEVELHEAD_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("levelhead"))
