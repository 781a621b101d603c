"""The gate in worlds of known truth: what it refuses, lets through, and promises."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.simulation import SUBGROUPS, TextWorld

from levelhead.errors import ConfigError
from levelhead.evaluation.pairs import Toxicities
from levelhead.metrics.power import Design, VarianceComponents
from levelhead.verification.decision import Check, look_errors, verdict_of
from levelhead.verification.measure import axis_checks
from levelhead.verification.policy import Policy, read_policy
from levelhead.verification.power import LEAST_SAMPLES, POWER, components_of, planned_power

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.toml"
GAP = 0.09
UNCHANGED, DOUBLED = 0.0, 1.0
"""By how much the gap grew, as a share of it."""


def design(templates: int = 80, words: int = 1) -> Design:
    prompts = templates * SUBGROUPS * words
    return Design(prompts=prompts, samples=1, subgroups=SUBGROUPS, templates=templates)


def plan(rules: Policy, one: Design, axes: int = 1) -> int:
    """Samples per prompt that the policy plans for profanity-check."""
    limits = [rules.max_gap_increase, rules.max_mean_toxicity_increase]
    checks = axes * sum(limit is not None for limit in limits)
    components = components_of(rules, "profanity-check")
    return planned_power(rules, {str(i): one for i in range(axes)}, components, checks).samples


def verdicts(
    growth: float,
    rules: Policy,
    one: Design,
    replications: int,
    *,
    axes: int = 1,
    shared: float = 0.0,
    direction: str = "one",
    seed: int = 0,
) -> list[str]:
    """What the gate says of a candidate whose gap of 0.09 grew by a share, on the first axis.

    shared: of the texts, those that are the base's own.
    """
    rng = np.random.default_rng(seed)
    looks = rules.looks_at(plan(rules, one, axes))
    shape = {"templates": one.templates, "words": one.prompts // one.templates // SUBGROUPS}
    # Below 0: one subgroup is written about with more toxicity than the others.
    base = TextWorld(bias=-GAP, direction=direction, samples=looks[-1], **shape)
    grown = replace(base, bias=base.bias * (1 + growth))
    found = []
    for _ in range(replications):
        pairs = [pair(base, grown if i == 0 else base, shared, rng) for i in range(axes)]
        found.append(gate(pairs, base, rules, looks, rng))
    return found


def pair(
    base: TextWorld, other: TextWorld, shared: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    effects = base.effects(rng)
    x, y = base.draw(rng, effects)[1], other.draw(rng, effects)[1]
    return x, np.where(rng.random(len(x)) < shared, x, y)


def gate(
    pairs: list[tuple[np.ndarray, np.ndarray]],
    world: TextWorld,
    rules: Policy,
    looks: tuple[int, ...],
    rng: np.random.Generator,
) -> str:
    """As `levelhead verify` judges: look by look, axes that passed are done."""
    subgroup, template = world.codes
    number = np.tile(np.arange(looks[-1]), len(subgroup) // looks[-1])
    limits = [rules.max_gap_increase, rules.max_mean_toxicity_increase]
    count = len(pairs) * sum(limit is not None for limit in limits)
    checks: list[list[Check]] = [[] for _ in pairs]
    for samples in looks:
        errors = look_errors(rules.confidence, count, samples, looks)
        seen = number < samples
        for i, (x, y) in enumerate(pairs):
            if checks[i] and verdict_of(checks[i]) == "passed":
                continue
            both = Toxicities(
                base=x[seen], pruned=y[seen], subgroup=subgroup[seen], template=template[seen],
                num_subgroups=SUBGROUPS,
            )  # fmt: skip
            checks[i] = axis_checks(str(i), both, rules, errors, rng)
        verdict = verdict_of([check for one in checks for check in one])
        if verdict != "cannot tell":
            return verdict
    return verdict


def share(found: list[str], word: str) -> float:
    return found.count(word) / len(found)


def test_a_doubled_gap_is_refused_and_an_unchanged_one_passes() -> None:
    """Short: of 12 runs, a share of 80% leaves fewer than 5 with a probability below 0.1%."""
    one = design(60)
    assert share(verdicts(UNCHANGED, Policy(), one, 12), "passed") >= 5 / 12
    assert share(verdicts(DOUBLED, Policy(), one, 8), "passed") <= 2 / 8


def test_near_identical_models_pass_at_a_margin_that_others_could_not() -> None:
    narrow = Policy(max_gap_increase=0.02, shared_noise=0.9)
    found = verdicts(UNCHANGED, narrow, design(60), 6, shared=0.95)
    assert share(found, "passed") >= 3 / 6
    with pytest.raises(ConfigError, match="cannot resolve"):
        plan(Policy(max_gap_increase=0.02), design(60))


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("templates", "direction", "staged"),
    [(60, "one", False), (100, "spread", False), (80, "one", True)],
)
def test_power_and_error_at_the_default_margin(
    templates: int, direction: str, staged: bool
) -> None:
    one = design(templates)
    rules = Policy()
    if staged:
        rules = Policy(looks=(1, 4, plan(rules, one) + 1))
    runs = 60 if staged else 200  # an early look's level takes many draws
    given = {"replications": runs, "direction": direction, "seed": 1}
    assert share(verdicts(UNCHANGED, rules, one, **given), "passed") >= 0.8
    assert share(verdicts(DOUBLED, rules, one, **given), "passed") <= 0.05
    # At the margin itself it is a test at 5%, three standard errors allowed.
    at_margin = verdicts(rules.max_gap_increase / GAP, rules, one, **given)
    assert share(at_margin, "passed") <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert share(at_margin, "failed") <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.simulation
def test_seven_axes_and_their_toxicity_together() -> None:
    """The example policy's margins, at the budget they take: no heap of "cannot tell"."""
    rules = replace(read_policy(EXAMPLE), max_ppl_increase=None, looks=None)
    given = {"replications": 40, "axes": 7, "seed": 2}
    one = design(80)
    assert share(verdicts(UNCHANGED, rules, one, **given), "passed") >= 0.8
    assert share(verdicts(DOUBLED, rules, one, **given), "passed") <= 0.05


def test_what_the_margins_take_is_planned() -> None:
    default = components_of(Policy(), "toxicityclassifier")
    seven = {str(i): design(80) for i in range(7)}
    found = planned_power(Policy(), seven, default, 7)
    assert found.unchanged >= POWER
    assert found.doubled >= 0.95
    assert found.smallest_margin <= Policy().max_gap_increase
    assert LEAST_SAMPLES <= found.samples <= 8, "an ordinary budget resolves the default margin"
    assert planned_power(Policy(max_gap_increase=0.5), seven, default, 7).samples == LEAST_SAMPLES
    assert found.near_identical > found.unchanged
    looser = planned_power(Policy(max_gap_increase=0.2, samples=3), seven, default, 7)
    assert looser.doubled < 0.5, "a margin above the gap lets it double, and the plan says so"


def test_a_margin_that_the_budget_does_not_resolve_is_refused_with_what_would() -> None:
    noisy = VarianceComponents(text=0.021)
    given = {"a": design(20)}
    with pytest.raises(ConfigError, match=r"cannot resolve max_gap_increase = 0\.05") as found:
        planned_power(Policy(samples=2), given, noisy, 1)
    said = str(found.value)
    samples = int(said.partition("give samples = ")[2].partition(",")[0])
    margin = float(said.partition("at least max_gap_increase = ")[2].partition(",")[0])
    assert planned_power(Policy(samples=samples), given, noisy, 1).unchanged >= POWER
    assert planned_power(Policy(samples=2, max_gap_increase=margin), given, noisy, 1)
    with pytest.raises(ConfigError):
        planned_power(Policy(samples=samples - 1), given, noisy, 1)
    for never in (Policy(max_gap_increase=0.0), Policy(max_mean_toxicity_increase=0.0)):
        with pytest.raises(ConfigError, match="no number of samples is enough"):
            planned_power(never, given, noisy, 2)


def test_what_an_earlier_audit_measured_can_stand_in_a_policy() -> None:
    rules = Policy(text_variance=0.002, shared_noise=0.5)
    found = components_of(rules, "profanity-check")
    assert (found.text, found.r_squared, found.shared) == (0.002, 0.0, 0.5)
    assert components_of(Policy(), "masked:profanity-check") == components_of(
        Policy(), "profanity-check"
    )
    assert components_of(Policy(), "me/own").r_squared == 0.0
