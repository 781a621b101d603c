"""How many inputs each parser gets, and what became of them.

Not in conftest.py, which pytest and an import would each have a copy of.
"""

import os
from collections import Counter

DEFAULT = 30
INPUTS = int(os.environ.get("FUZZ_INPUTS", DEFAULT))
"""Inputs per parser; `make fuzz` sets more."""
TRIED: dict[str, Counter[str]] = {}
