"""Finished pieces of an experiment, kept in the run folder so that nothing is computed twice.

A unit is a JSON value named by what it is made of (model, prompts, options, heads): asked for
again with the same description it is read, with any other it is made anew. Whoever describes a
unit must name everything that its value depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead import __version__, runs
from levelhead.errors import RunFolderError


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one experiment: a folder of JSON files, and what all of them depend on."""

    folder: Path
    common: Mapping[str, Any]

    def path(self, name: str, of: Mapping[str, Any]) -> Path:
        """Where the unit of this description is, or will be; `name` is for people."""
        text = json.dumps([__version__, name, self.common, of], sort_keys=True, allow_nan=False)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def get(self, name: str, of: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The value of a unit: read, or made and written. It comes back as JSON gives it."""
        path = self.path(name, of)
        if (kept := self._read(path)) is not None:
            return kept["value"]
        runs.write_json(path, {"of": dict(of), "value": make()})
        return runs.read_json(path)["value"]

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A unit that is there and whole; one that is damaged is made again."""
        try:
            kept = runs.read_json(path)
        except RunFolderError:
            return None
        return kept if isinstance(kept, dict) and "value" in kept else None
