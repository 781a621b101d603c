"""Work that outlives its process: finished batches, a lock, and what can be watched meanwhile.

Everything is in RUN/work. See `recording` for what is kept and when it is used again.
"""

from levelhead.journal.recording import FOLDER, begin, now, scope, stage, step

__all__ = ["FOLDER", "begin", "now", "scope", "stage", "step"]
