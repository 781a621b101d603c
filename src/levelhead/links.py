"""Refuse a folder whose links lead out of it: a run folder that somebody sent could have any.

`model` as a link to the home folder would make a command read or write there under a name from
the run folder. A link that stays inside is no harm. Knows nothing of what the folder holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from levelhead.errors import RunFolderError


def refuse_links(folder: Path) -> None:
    """Check every file and folder in it, however deep; `folder` itself may be a link.

    Raises:
        RunFolderError: a link leads out of the folder; the message names it and where it leads.
    """
    root = folder.resolve()
    for link in _links(root):
        target = link.resolve()
        if not target.is_relative_to(root):
            raise RunFolderError(
                f"{folder / link.relative_to(root)} is a link to {target}, outside of the run "
                "folder; put the file or folder itself in its place"
            )


def _links(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    yield from _links(Path(entry.path))
    except OSError:
        return  # a folder that cannot be listed is reported by whoever reads in it
