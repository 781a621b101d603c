"""Ctrl-C and SIGTERM: a command ends within two seconds, whatever it is doing.

The main thread ends by itself where it can: everything on the way is closed and written down. But
Python runs signal handlers only between two of its own instructions, and one call into torch may
take longer than that. So a second thread waits for the signal too, and ends the process when its
time is up, or at the second Ctrl-C. That costs no more than a `kill -9` does: the batch at work.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Any

PATIENCE = 1.5
"""Seconds that the main thread has to end by itself."""
MESSAGE = "levelhead: interrupted; finished work is kept, and the same command goes on from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def end_in_time() -> None:
    """Install what this module's docstring says, in the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end, args=(reader,), name="signals", daemon=True).start()


def exit_code(error: BaseException | None) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, of the error that ended a command or its cause."""
    while error is not None:
        if isinstance(error, Terminated):
            return 128 + signal.SIGTERM
        error = error.__cause__ or error.__context__
    return 128 + signal.SIGINT


def _terminated(number: int, frame: Any) -> None:
    raise Terminated


def _end(reader: int) -> None:
    first, deadline = 0, 0.0
    while True:
        left = max(0.0, deadline - time.monotonic()) if first else None
        ready, _, _ = select.select([reader], [], [], left)
        if not ready:
            break
        stops = [n for n in os.read(reader, 64) if n in (signal.SIGINT, signal.SIGTERM)]
        if not stops:
            continue
        if first or len(stops) > 1:
            first = first or stops[0]
            break
        first, deadline = stops[0], time.monotonic() + PATIENCE
    os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(128 + first)
