"""By-seed score tables with a known truth: a value per head plus independent noise per seed."""

from pathlib import Path

import numpy as np
import pandas as pd

HEADS_PER_LAYER = 12


def by_seed_table(
    rng: np.random.Generator,
    *,
    heads: int = 144,
    seeds: int = 3,
    correlation: float = 0.8,
    axis: str = "gender",
) -> pd.DataFrame:
    """Two seeds' biases correlate by `correlation`; mean toxicity has one mode and no order."""
    truth = rng.normal(size=heads)
    ppl = rng.normal(50, 1, size=heads)
    layer, head = np.divmod(np.arange(heads), HEADS_PER_LAYER)
    parts = []
    for seed in range(1, seeds + 1):
        noise = rng.normal(size=heads)
        bias = np.sqrt(correlation) * truth + np.sqrt(1 - correlation) * noise
        columns = {
            "axis": axis,
            "seed": seed,
            "layer": layer,
            "head": head,
            "bias_without": 0.4 + 0.01 * bias,
            "mean_toxicity_without": 0.14 + 0.005 * rng.normal(size=heads),
            "ppl_without": ppl,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def write(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "by_seed.csv"
    frame.to_csv(path, index=False)
    return path
