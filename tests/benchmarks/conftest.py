"""The benchmarks are no installed package: find them beside tests, however pytest starts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
