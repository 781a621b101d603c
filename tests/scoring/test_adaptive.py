"""Rounds are independent, sampling goes on until reliable or spent, and it says which."""

from dataclasses import replace

import numpy as np
import pytest

from levelhead.progress import silent
from levelhead.scores import MIN_RELIABILITY
from levelhead.scoring import BIAS_ESTIMATORS
from levelhead.scoring.adaptive import SamplingBudget, score_axis
from levelhead.scoring.problem import EstimatorOptions, HeadShifts, group_shifts, sample_texts
from levelhead.scoring.rounds import estimate, merge_shifts, merge_texts
from levelhead.scoring.score_table import unreliable
from levelhead.scoring.token_gradient import token_gradient

ENOUGH = SamplingBudget(reliability=0.5, most_samples=8)


def noisy(level: float, signal: float = 0.01):
    """An estimator of known truth: head effects plus independent noise for every text."""

    def estimator(problem, base, progress, options=None) -> HeadShifts:
        truth = signal * np.random.default_rng(7).standard_normal((3, 3, 6))
        rng = np.random.default_rng([problem.seed, problem.first_sample])
        subgroup = problem.subgroup[base.prompt]
        rows = truth[subgroup] + level * rng.standard_normal((len(base.texts), 3, 6))
        means = np.array([0.2, 0.3, 0.7])
        toxicity = means[subgroup] + 0.01 * rng.standard_normal(len(base.texts))
        return group_shifts(
            rows, subgroup, problem.template[base.prompt], base.sample, 3, toxicity, toxicity,
            {"estimator": "noisy", "rows": len(base.texts)},
        )  # fmt: skip

    return estimator


def test_a_clean_ranking_needs_no_more_samples(make_problem) -> None:
    base, _, effects = score_axis(make_problem(samples=1), noisy(0.001), ENOUGH, silent)
    assert effects.diagnostics["stopped"] == "reliability reached"
    assert effects.diagnostics["samples"] == 1
    assert len(base.texts) == 36


def test_samples_are_added_until_the_target_is_reached(make_problem) -> None:
    target = replace(ENOUGH, reliability=0.9, most_samples=64)
    base, _, effects = score_axis(make_problem(samples=1), noisy(0.03), target, silent)
    history = effects.diagnostics["history"]
    assert effects.diagnostics["stopped"] == "reliability reached"
    assert 1 < effects.diagnostics["samples"] <= 64
    assert all(step["reliability"] < 0.9 for step in history[:-1])
    assert history[-1]["reliability"] >= 0.9
    assert sorted(set(base.sample.tolist())) == list(range(history[-1]["samples"]))


def test_noise_stops_at_the_most_samples(make_problem) -> None:
    *_, effects = score_axis(make_problem(samples=1), noisy(0.05, 0.0), ENOUGH, silent)
    assert effects.diagnostics["stopped"] == "max-samples"
    assert effects.diagnostics["samples"] == 8
    details = {"axes": {"gender": {
        "measurable": effects.measurable, "reliability": effects.reliability, "samples": 8,
    }}}  # fmt: skip
    assert "mostly noise" in unreliable(details, "gender")[0]


def test_the_time_budget_ends_it_and_the_first_round_always_runs(make_problem) -> None:
    ticks = iter(np.arange(0.0, 1000.0, 10.0))  # every look at the clock is 10 seconds later
    budget = SamplingBudget(reliability=0.99, most_samples=1000, seconds=15)
    *_, effects = score_axis(
        make_problem(samples=1), noisy(0.5), budget, silent, clock=lambda: next(ticks)
    )
    assert effects.diagnostics["stopped"] == "time-budget"
    assert effects.diagnostics["samples"] == 1


@pytest.mark.usefixtures("clear_draws")
def test_more_samples_at_once_or_in_rounds_are_the_same_texts(make_problem) -> None:
    whole = sample_texts(make_problem(samples=3, seed=4), silent, "")
    first = sample_texts(make_problem(samples=1, seed=4), silent, "")
    later = sample_texts(replace(make_problem(samples=2, seed=4), first_sample=1), silent, "")
    parts = merge_texts([first, later])
    keys = [(int(p), int(k), t) for p, k, t in zip(whole.prompt, whole.sample, whole.tokens)]  # noqa: B905
    again = [(int(p), int(k), t) for p, k, t in zip(parts.prompt, parts.sample, parts.tokens)]  # noqa: B905
    assert sorted(keys) == sorted(again)


def test_rounds_are_merged_in_the_order_of_the_texts(make_problem) -> None:
    problem = make_problem(samples=3)
    base = sample_texts(problem, silent, "")
    merged = estimate(token_gradient, problem, base, silent)
    assert merged.diagnostics["rounds"] == 3
    assert len(merged.shift) == 3 * 12
    one = estimate(token_gradient, replace(problem, samples=1), first_of(base), silent)
    np.testing.assert_array_equal(merged.shift[merged.sample == 0], one.shift)
    np.testing.assert_array_equal(merged.toxicity[base.sample == 0], one.toxicity)
    assert merge_shifts([one, one]).diagnostics["rows"] == 2 * one.diagnostics["rows"]


def first_of(base):
    keep = np.flatnonzero(base.sample == 0)
    return replace(
        base, prompt=base.prompt[keep], sample=base.sample[keep], toxicity=base.toxicity[keep],
        tokens=tuple(base.tokens[i] for i in keep), texts=tuple(base.texts[i] for i in keep),
    )  # fmt: skip


@pytest.mark.parametrize("estimator", ["token-gradient", "ablate"])
def test_seeds_share_no_draws(make_problem, estimator) -> None:
    """Two seeds that shared samples, contexts or noise would agree without meaning anything."""
    found = []
    for seed in (0, 1):
        problem = make_problem(seed=seed, samples=2)
        base = sample_texts(problem, silent, "")
        shifts = BIAS_ESTIMATORS[estimator](problem, base, silent)
        found.append((base, shifts))
    (one, s1), (two, s2) = found
    same = np.mean([a == b for a, b in zip(one.tokens, two.tokens, strict=True)])
    assert same < 0.2
    residual = [s.shift - s.shift.mean(0) for s in (s1, s2)]
    r = np.corrcoef(residual[0].ravel(), residual[1].ravel())[0, 1]
    if estimator == "ablate":
        assert abs(r) < 0.1
    # control: the same seed twice is one sample twice, and would be found out
    again = sample_texts(make_problem(seed=0, samples=2), silent, "")
    assert again.tokens == one.tokens


def test_common_random_numbers_make_ablation_less_noisy(make_problem) -> None:
    problem = make_problem(samples=2)
    base = sample_texts(problem, silent, "")
    spread = {
        crn: BIAS_ESTIMATORS["ablate"](
            problem, base, silent, EstimatorOptions(common_random_numbers=crn)
        ).shift.var()
        for crn in (False, True)
    }
    assert spread[True] < 0.7 * spread[False]


def test_shuffled_subgroups_are_refused(make_problem, prompts) -> None:
    """Permutation control: with subgroup labels shuffled over prompts nothing is measurable.

    The head that writes the toxic word closes whatever gap noise makes, so that two shuffles do
    agree a little, and halves, whose noise is larger, somewhat more; not enough to be relied on.
    """
    refused, found = 0, []
    for seed in range(8):
        problem = make_problem(samples=2, seed=seed)
        rng = np.random.default_rng(seed)
        labels = rng.permutation([p.subgroup for p in problem.prompts])
        shuffled = replace(
            problem,
            prompts=tuple(
                replace(p, subgroup=str(s), variant=i)
                for i, (p, s) in enumerate(zip(problem.prompts, labels, strict=True))
            ),
        )
        *_, effects = score_axis(shuffled, token_gradient, replace(ENOUGH, most_samples=2), silent)
        details = {"axes": {"gender": {
            "measurable": effects.measurable, "reliability": effects.reliability,
            "gap": dict(enumerate(effects.gap)), "gap_stderr": dict(enumerate(effects.gap_stderr)),
        }}}  # fmt: skip
        refused += bool(unreliable(details, "gender"))
        found.append(effects.reliability)
    assert refused >= 7
    assert np.mean(found) < MIN_RELIABILITY
