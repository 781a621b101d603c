"""By-seed score tables: a row per axis, seed and head, as published with the paper.

Columns `axis, seed, layer, head, bias_without, mean_toxicity_without, ppl_without`; others are
ignored. A head may lack a seed. The rows of one axis and seed are one run of a procedure; what
the procedure was, this module does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from levelhead.errors import ScoreTableError
from levelhead.records import Head
from levelhead.scores import finite_numbers, read_frame

VALUES = ("bias_without", "mean_toxicity_without", "ppl_without")
COLUMNS = ("axis", "seed", "layer", "head", *VALUES)
LARGEST_SEED = 2**53
"""Above it a float no longer holds every whole number."""

Grid = Float[np.ndarray, "seeds heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedScores:
    """What removing each head gave on one axis, by seed; NaN where a head lacks a seed."""

    axis: str
    seeds: tuple[int, ...]
    heads: tuple[Head, ...]
    """Sorted; every head that any seed has."""
    bias: Grid
    mean_toxicity: Grid
    ppl: Grid

    def of_seeds(self, kept: list[int]) -> SeedScores:
        """The seeds at these positions, and all heads."""
        return replace(
            self,
            seeds=tuple(self.seeds[i] for i in kept),
            bias=self.bias[kept],
            mean_toxicity=self.mean_toxicity[kept],
            ppl=self.ppl[kept],
        )

    def of_heads(self, kept: Bool[np.ndarray, "seeds heads"]) -> SeedScores:
        """All seeds, with the heads of each that are kept; the others lack the seed."""
        return replace(
            self,
            bias=np.where(kept, self.bias, np.nan),
            mean_toxicity=np.where(kept, self.mean_toxicity, np.nan),
            ppl=np.where(kept, self.ppl, np.nan),
        )


def read_by_seed(path: str | Path) -> tuple[SeedScores, ...]:
    """Read a by-seed CSV; one record per axis, in the order of the file.

    Raises:
        ScoreTableError: not a CSV, not in by-seed form, a value that is not finite (with its row
            and column), or a head twice in one seed.
    """
    source = str(path)
    if Path(path).is_dir():
        raise ScoreTableError(
            f"{source} is a folder, not a by-seed score table (CSV); the reliability of a run of "
            "levelhead's own stands in its details.json"
        )
    frame = read_frame(path)
    _check_columns(frame, source)
    axes = [str(axis).strip() for axis in frame["axis"]]
    if "" in axes:
        raise ScoreTableError(f"{source}: column 'axis', row {axes.index('') + 1} is empty")
    numbers = {n: finite_numbers(frame[n], n, source) for n in COLUMNS[1:]}
    numbers["seed"] = _seeds(numbers["seed"], source)
    clean = pd.DataFrame({"axis": axes} | numbers).astype({"seed": int, "layer": int, "head": int})
    _check_rows(clean, source)
    return tuple(_scores(str(axis), rows) for axis, rows in clean.groupby("axis", sort=False))


def _check_columns(frame: pd.DataFrame, source: str) -> None:
    missing = [name for name in COLUMNS if name not in frame.columns]
    if not missing:
        return
    if "seed" in missing and {"layer", "head"} <= set(frame.columns):
        raise ScoreTableError(
            f"{source} has a row per head and no replicates (no column 'seed'), so whether a rerun "
            "would confirm its ranking cannot be diagnosed; score again with other seeds and put "
            f"the results into one table with the columns {', '.join(COLUMNS)}"
        )
    raise ScoreTableError(
        f"{source}: no column {missing[0]!r}; a by-seed table has the columns "
        f"{', '.join(COLUMNS)}, this one has {', '.join(map(str, frame.columns[:12]))}"
    )


def _seeds(values: Float[np.ndarray, " rows"], source: str) -> Float[np.ndarray, " rows"]:
    wrong = (values != np.floor(values)) | (np.abs(values) > LARGEST_SEED)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ScoreTableError(
            f"{source}: column 'seed', row {row + 1} is {values[row]}, not a whole number "
            f"up to {LARGEST_SEED}"
        )
    return values


def _check_rows(frame: pd.DataFrame, source: str) -> None:
    twice = frame.duplicated(["axis", "seed", "layer", "head"]).to_numpy()
    if twice.any():
        index = int(np.argmax(twice))
        row = frame.iloc[index]
        raise ScoreTableError(
            f"{source}: row {index + 1} is the second one for axis {row['axis']!r}, seed "
            f"{row['seed']}, layer {row['layer']}, head {row['head']}; a head has one row per "
            "axis and seed"
        )


def _scores(axis: str, rows: pd.DataFrame) -> SeedScores:
    grids = {
        name: rows.pivot(index="seed", columns=["layer", "head"], values=name).sort_index(axis=1)
        for name in VALUES
    }
    heads = sorted(set(zip(rows["layer"], rows["head"], strict=True)))  # the columns' order
    bias, mean_toxicity, ppl = (grid.to_numpy(dtype=float) for grid in grids.values())
    return SeedScores(
        axis=axis,
        seeds=tuple(int(seed) for seed in sorted(set(rows["seed"]))),
        heads=tuple((int(layer), int(head)) for layer, head in heads),
        bias=bias,
        mean_toxicity=mean_toxicity,
        ppl=ppl,
    )
