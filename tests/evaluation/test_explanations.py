"""Less biased, or less toxic for everyone? On simulated toxicities of known truth."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, World

from levelhead.evaluation.pairs import Toxicities
from levelhead.evaluation.results import AxisEvaluation, ModelBias, Reading
from levelhead.evaluation.verdict import headline, judged, other_explanations
from levelhead.metrics.bias import bias
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.price import Worst
from levelhead.records import Estimate, Interval

TEXT = Worst(text="pydoc", rise=0.02, interval=None, base=10.0, pruned=10.2, of=1)
LARGE = World("large", "beta", templates=40)


def drawn(seed: int, after: World, factor: float = 1.0) -> Toxicities:
    """The world with large gaps before, another after, on the same templates."""
    rng = np.random.default_rng(seed)
    effects = LARGE.effects(rng)
    subgroup, template, _ = LARGE.codes
    return Toxicities(
        base=LARGE.draw(rng, effects),
        pruned=factor * after.draw(rng, effects),
        subgroup=subgroup,
        template=template,
        num_subgroups=SUBGROUPS,
    )


def result_of(toxicities: Toxicities, seed: int = 0) -> AxisEvaluation:
    """The verdict on one reading, which stands for the masked one; the floor of this world is 0."""
    rng = np.random.default_rng(seed)
    found = toxicities.tested(rng, draws=1000)
    fall = linear_difference_interval(toxicities.pruned - toxicities.base, toxicities.template)
    models = [
        ModelBias(
            bias=bias(x, toxicities.subgroup, SUBGROUPS), bias_corrected=0.0,
            ci95=Interval(0, 1), mean_toxicity=float(x.mean()), prompt_floor=0.0, gaps={},
        )
        for x in (toxicities.base, toxicities.pruned)
    ]  # fmt: skip
    reading = Reading(
        base=models[0],
        pruned=models[1],
        difference=found.estimate,
        adjusted_difference=found.estimate,
        p_value=found.p_value,
        factor=toxicities.common_factor(0.0, rng),
        expected_difference=Estimate(value=0.0, interval=Interval(-1, 1)),
        toxicity_difference=fall,
        details={},
    )
    one = AxisEvaluation(
        verdict="not distinguishable",
        reading=reading,
        masked=True,
        details={
            "samples": len(toxicities.base),
            "samples_needed": None,
            "degeneration": {"repetition": {"base": 0.01, "pruned": 0.01, "worse": False}},
        },
    )
    return judged({"gender": one})["gender"]


def shares_of(after: World, factor: float, seeds: range) -> dict[str, float]:
    """How often each verdict is given."""
    told = Counter(result_of(drawn(seed, after, factor), seed).verdict for seed in seeds)
    return {word: number / len(seeds) for word, number in told.items()}


def test_halved_toxicities_are_not_called_lower() -> None:
    found = shares_of(LARGE, 0.5, range(8))
    assert found.get("less toxic for everyone", 0) > 0.7, "the gap halves, too"
    assert found.get("lower", 0) <= 0.13
    result = result_of(drawn(0, LARGE, 0.5))
    said = headline("gender", result, TEXT, True, "3 heads", 0.1)
    assert "less toxic for everyone, which is enough to explain the smaller" in said


def test_a_gap_that_falls_alone_is_not_explained_away() -> None:
    """Control: the same size of gap before, none after, about as toxic on the whole."""
    found = shares_of(World("none", "beta", templates=40, shift=0.25), 1.0, range(8))
    assert found.get("lower", 0) > 0.7


def test_a_fall_of_more_than_the_whole_gap_is_partly_noise() -> None:
    result = result_of(drawn(1, World("none", "beta", templates=40, shift=0.25)), 1)
    assert result.verdict == "lower"
    small = replace(result.reading.base, bias=-result.reading.adjusted_difference.value / 2)
    doubtful = replace(result, reading=replace(result.reading, base=small))
    assert "part of it is noise" in " ".join(other_explanations(doubtful, TEXT, 0.1))
    large = replace(small, bias=3 * small.bias)
    sure = replace(result, reading=replace(result.reading, base=large))
    assert other_explanations(sure, TEXT, 0.1) == ()


def test_nothing_is_called_lower_where_nothing_changes() -> None:
    assert shares_of(LARGE, 1.0, range(8)).get("lower", 0) <= 0.13


def test_relative_bias_stays_where_everything_shrinks_alike() -> None:
    pair = drawn(0, LARGE)
    pair = replace(pair, pruned=pair.base / 2)
    found = pair.relative_bias(np.random.default_rng(0), 0.0)
    assert found is not None
    assert found["pruned"] == pytest.approx(found["base"])
    assert found["difference"]["ci95"] == pytest.approx([0, 0], abs=1e-9)
    assert pair.difference(np.random.default_rng(0)).interval.high < 0, "plain bias halves"


@pytest.mark.parametrize("factor", [0.5, pytest.param(1.0, marks=pytest.mark.simulation)])
def test_the_interval_of_relative_bias_holds_the_truth(factor: float) -> None:
    """After: no gap at all, so that the true change is minus the relative bias before."""
    large = World("large", "beta", templates=30)
    rng = np.random.default_rng(1)
    subgroup, template, _ = large.codes
    many = World("large", "beta", templates=20_000)
    truth = -large.true_bias / float(many.draw(rng).mean())
    none = World("none", "beta", templates=30)
    held = 0
    for _ in range(40):
        effects = large.effects(rng)
        pair = Toxicities(
            base=large.draw(rng, effects), pruned=factor * none.draw(rng, effects),
            subgroup=subgroup, template=template, num_subgroups=SUBGROUPS,
        )  # fmt: skip
        found = pair.relative_bias(rng, 0.0)
        assert found is not None
        low, high = found["difference"]["ci95"]
        held += low <= truth <= high
    assert held / 40 > 0.85


def test_nothing_is_divided_by_a_toxicity_of_zero() -> None:
    pair = drawn(0, LARGE)
    assert (
        replace(pair, pruned=pair.pruned * 0).relative_bias(np.random.default_rng(0), 0.0) is None
    )
    noise = np.random.default_rng(0).normal(0, 1, len(pair.base))
    assert replace(pair, pruned=noise).relative_bias(np.random.default_rng(0), 0.0) is None


def test_lost_fluency_is_named_and_only_of_a_lower_bias() -> None:
    result = result_of(drawn(0, World("none", "beta", templates=40, shift=0.25)))
    assert result.verdict == "lower"
    dear = Worst(text="prose", rise=0.4, interval=None, base=10.0, pruned=14.0, of=3)
    assert other_explanations(result, TEXT, 0.1) == ()
    (said,) = other_explanations(result, dear, 0.1)
    assert "less fluent text: perplexity rose by 40.0% on prose, the worst of 3 texts, more" in said
    assert said in headline("gender", result, dear, True, "3 heads", 0.1)
    repeats: dict[str, Any] = {"repetition": {"base": 0.01, "pruned": 0.2, "worse": True}}
    worse = replace(result, details={**result.details, "degeneration": repeats})
    (said,) = other_explanations(worse, TEXT, 0.1)
    assert "repeated text went from 1.0% to 20.0%" in said
    higher = replace(result, verdict="higher")
    assert other_explanations(higher, dear, 0.1) == ()
