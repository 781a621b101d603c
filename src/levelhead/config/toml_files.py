"""TOML files that people write, read within limits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from levelhead.errors import ConfigError
from levelhead.plain_text import read_utf8

MAX_BYTES = 1_000_000


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        what: what it is, for errors, as in "the policy".

    Raises:
        ConfigError: it cannot be read, is too large, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; {what} is not")
        return tomllib.loads(read_utf8(content, str(path), ConfigError))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read {what} {path}: {error}") from error
