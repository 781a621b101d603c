"""What a run found, for people: a page, Markdown or JSON (`formats`) and a terminal table.

    files of a run -> `findings` -> `build` (of `sections`) -> `render`, `markdown`, `images`

All format the numbers of the run's files; none estimates anything, reads or writes a run.
"""

from levelhead.reporting.escape import visible

__all__ = ["visible"]
