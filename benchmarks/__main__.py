"""Run benchmarks by name, then print what all of them found: python -m benchmarks [NAME ...].

`table` as the only name runs nothing and prints the table. With `--axis` a benchmark's file is
NAME.AXIS.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    averaging,
    averaging_fresh,
    compare_cost,
    conclusions,
    coverage,
    dtype,
    frontier,
    growth,
    hybrid,
    joint,
    joint_fresh,
    neurons,
    plain_perplexity,
    planted_heads,
    planted_readings,
    protect,
    repair,
    seeds,
    table,
)

BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    "hybrid": hybrid.measure,
    "seeds": seeds.measure,
    "plain": plain_perplexity.measure,
    "protect": protect.measure,
    "growth": growth.measure,
    "conclusions": conclusions.measure,
    "frontier": frontier.measure,
    "coverage": coverage.measure,
    "joint": joint.measure,
    "joint_fresh": joint_fresh.measure,
    "planted": planted_heads.measure,
    "planted_readings": planted_readings.measure,
    "compare": compare_cost.measure,
    "neurons": neurons.measure,
    "dtype": dtype.measure,
    "repair": repair.measure,
    "averaging": averaging.measure,
    "averaging_fresh": averaging_fresh.measure,
}
OF_AN_AXIS = ("averaging", "averaging_fresh")
"""Those that take another axis than gender_and_sex."""
OUT = Path("runs/bench")


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="less text and fewer heads")
    parser.add_argument("--axis", help=f"another axis, of {', '.join(OF_AN_AXIS)}")
    given = parser.parse_args()
    unknown = set(given.names) - {*BENCHMARKS, "table"}
    if unknown:
        parser.error(f"unknown benchmark {unknown.pop()!r}; there are {', '.join(BENCHMARKS)}")
    if given.axis and not (given.names and set(given.names) <= set(OF_AN_AXIS)):
        parser.error(f"--axis {given.axis} is for {', '.join(OF_AN_AXIS)}: name that alone")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in [n for n in given.names if n != "table"] if given.names else BENCHMARKS:
        options = {"axis": given.axis} if given.axis else {}
        result = BENCHMARKS[name](given.quick, **options)
        text = json.dumps(result, indent=2)
        file = f"{name}.{given.axis}.json" if given.axis else f"{name}.json"
        (OUT / file).write_text(text + "\n")
        print(f"== {name}\n{text}", flush=True)
    table.show()


main()
