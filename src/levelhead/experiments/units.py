"""Finished pieces of an experiment, kept in the run folder so that nothing is computed twice.

A unit is a JSON value named by what it is made of (model, prompts, options, heads): asked for
again with the same description it is read, with any other it is made anew. Whoever describes a
unit must name everything that its value depends on. Units outlive the command that made them (a
second comparison reads the first one's); what a unit itself is made of is kept, batch by batch, in
the journal of the command while it is not finished. A unit holds the SHA-256 of its value: one that
is damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead import __version__, journal, runs
from levelhead.errors import RunFolderError
from levelhead.journal import watch


def safe_name(name: str) -> str:
    """A name (of a scorer, say) as part of a file's: letters, digits and few marks; shortened."""
    return re.sub(r"[^\w.-]+", "_", name)[:80]


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
        if path.exists():
            if (kept := _read(path)) is not None:
                watch.unit_of_sets(reused=True)
                return kept["value"]
            message = f"{path} is damaged; what it held is computed again"
            watch.event("damaged", level="warning", message=message)
        with journal.scope(path.name):
            value = make()
        kept = {"of": dict(of), "value": value, "sha256": _sum(value)}
        text = json.dumps(kept, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # No entry among the run folder's checksums: it has its own.
        runs.write_bytes(path, text.encode("utf-8"), recorded=False)
        watch.unit_of_sets(reused=False)
        return json.loads(text)["value"]


def _sum(value: Any) -> str:
    content = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """A unit that is whole, as far as it says what its value should be."""
    try:
        kept = runs.read_json(path)
    except RunFolderError:
        return None
    if not isinstance(kept, dict) or "value" not in kept:
        return None
    return kept if kept.get("sha256") == _sum(kept["value"]) else None
