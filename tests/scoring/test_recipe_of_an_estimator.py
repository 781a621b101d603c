"""The code of CONTRIBUTING's recipe for an estimator runs as it is printed."""

import re
import textwrap
from pathlib import Path

import numpy as np

from levelhead.models.architectures import head_counts
from levelhead.progress import silent
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.problem import (
    DEFAULTS,
    BiasProblem,
    EstimatorOptions,
    HeadShifts,
    SampledTexts,
    group_shifts,
    sample_texts,
)
from levelhead.scoring.stability import stability

RECIPES = Path(__file__).parents[2] / "CONTRIBUTING.md"
NAMES = {
    "np": np, "head_counts": head_counts, "group_shifts": group_shifts, "DEFAULTS": DEFAULTS,
    "BiasProblem": BiasProblem, "SampledTexts": SampledTexts, "HeadShifts": HeadShifts,
    "EstimatorOptions": EstimatorOptions, "Progress": object,
}  # fmt: skip


def test_the_estimator_of_the_recipe_gives_effects_and_tells_words_apart(make_problem) -> None:
    (block,) = re.findall(
        r"```python\n(\s*def my_estimator.*?)```", RECIPES.read_text(encoding="utf-8"), re.S
    )
    code = textwrap.dedent(block)
    assert code.count("...  #") == 1
    # In place of the three dots: head 0.0 makes texts about the first subgroup more toxic.
    effect = "rows[:, 0, 0] = 0.1 * (problem.subgroup[base.prompt] == 0)"
    filled = code.replace("...  #", f"{effect}; advance(len(rows))  #")
    scope = dict(NAMES)
    exec(filled, scope)  # noqa: S102 - our own document
    problem = make_problem(samples=2)
    base = sample_texts(problem, silent, "base")
    shifts = scope["my_estimator"](problem, base, silent)
    effects = axis_effects(problem, base, shifts)
    assert np.abs(effects.gap_effect[0]).argmax() == 0
    assert np.count_nonzero(effects.gap_effect[0]) == 1
    assert stability(problem, base, shifts, effects).to_json()["largest_share"]["word"]
