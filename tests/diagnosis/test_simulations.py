"""Simulated tables with a known truth: intervals cover, false alarms are rare, power is there.

What is true of a table is computed, not simulated: of normal values, Spearman's correlation is
6 / pi asin(r / 2), and correlations of residuals follow from those of the variables.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from levelhead.diagnosis import SeedScores, diagnose_axes
from levelhead.diagnosis.agreement import agreement
from levelhead.metrics.reliability import spearman_brown

SEEDS = 3
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""(bias, mean toxicity), seeds x heads, of a generator and a number of heads."""


def table(bias: np.ndarray, mean_toxicity: np.ndarray) -> SeedScores:
    """A table of them; the perplexity is the same in all seeds and has to do with nothing."""
    seeds, heads = bias.shape
    return SeedScores(
        axis="gender",
        seeds=tuple(range(1, seeds + 1)),
        heads=tuple(divmod(i, 12) for i in range(heads)),
        bias=bias,
        mean_toxicity=mean_toxicity,
        ppl=np.tile(np.cos(np.arange(heads) * 7.0), (seeds, 1)),
    )


def pearson(reliability: float) -> float:
    """The correlation of two seeds' normal values whose ranks have this reliability."""
    pair = reliability / (SEEDS - (SEEDS - 1) * reliability)
    return float(2 * np.sin(np.pi * pair / 6))


def parts(
    rng: np.random.Generator, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Independent: true bias, true toxicity, and seeds' noise of either."""
    true_bias, true_toxicity = rng.normal(size=(2, heads))
    noise, toxicity_noise = rng.normal(size=(2, SEEDS, heads))
    return true_bias, true_toxicity, noise, toxicity_noise


def mixed(
    reliability: float, *, toxicity: float = 0.75, echo: float = 0.0, own: float = 0.0
) -> Draw:
    """True bias of a reliability, and in it parts of the true toxicity and of its own noise.

    Args:
        reliability: of bias without these parts.
        toxicity: correlation of two seeds' mean toxicity.
        echo: weight of true toxicity in bias.
        own: weight of the noise of mean toxicity in bias.
    """

    def draw(rng: np.random.Generator, heads: int) -> tuple[np.ndarray, np.ndarray]:
        true, true_toxicity, noise, toxicity_noise = parts(rng, heads)
        p = pearson(reliability)
        bias = np.sqrt(p) * true + np.sqrt(1 - p) * noise + echo * true_toxicity
        mean_toxicity = np.sqrt(toxicity) * true_toxicity + np.sqrt(1 - toxicity) * toxicity_noise
        return bias + own * toxicity_noise, mean_toxicity

    return draw


def truths(reliability: float, toxicity: float, echo: float, own: float) -> tuple[float, ...]:
    """(reliability, of toxicity, without the own toxicity, without the true one) of `mixed`."""
    variance = 1 + echo**2 + own**2
    to_ranks = [
        (pearson(reliability) + echo**2) / variance,  # biases of two seeds
        toxicity,  # mean toxicities of two seeds
        echo * np.sqrt(toxicity / variance),  # bias of one, mean toxicity of another
        (echo * np.sqrt(toxicity) + own * np.sqrt(1 - toxicity)) / np.sqrt(variance),  # of one
    ]
    pair, mean, across, within = (6 / np.pi * np.arcsin(r / 2) for r in to_ranks)
    own_left = (pair - 2 * within * across + within**2 * mean) / (1 - within**2)
    true_left = (pair - across**2 / mean) / (1 - across**2 / mean)
    return tuple(spearman_brown(r, SEEDS) for r in (pair, mean, own_left, true_left))


def covered(heads: int, reliability: float, tables: int, seed: int, **world: float) -> np.ndarray:
    """Share of tables whose four intervals hold the truth."""
    rng = np.random.default_rng(seed)
    draw = mixed(reliability, **world)
    true = truths(
        reliability, world.get("toxicity", 0.75), world.get("echo", 0.0), world.get("own", 0.0)
    )
    inside = np.zeros(4)
    for _ in range(tables):
        found = agreement(table(*draw(rng, heads)))
        assert found is not None
        assert found.toxicity is not None
        estimates = (
            found.reliability,
            found.toxicity,
            found.without_toxicity,
            found.without_toxicity_corrected,
        )
        inside += [
            e.interval.low <= t <= e.interval.high for e, t in zip(estimates, true, strict=True)
        ]
    return inside / tables


def test_intervals_cover_the_truth() -> None:
    """95%, less four standard errors: the coverage itself is measured in the simulation tier."""
    found = covered(72, 0.5, 150, 1, echo=0.5)
    assert (found >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 150)).all()


WORLDS = [
    {},
    {"echo": 0.5, "own": 0.5},
    {"echo": 0.8, "toxicity": 0.5},
]


@pytest.mark.simulation
@pytest.mark.parametrize("heads", [72, 144, 384, 1024])
@pytest.mark.parametrize("reliability", [0.0, 0.3, 0.5, 0.8, 0.9])
def test_intervals_cover_at_their_level(heads: int, reliability: float) -> None:
    tables = {72: 600, 144: 400, 384: 120, 1024: 60}[heads]
    for number, world in enumerate(WORLDS):
        found = covered(heads, reliability, tables, 10 + number, **world)
        print(heads, reliability, world, found.round(3))
        # At least 93%, but for the chance of the simulation itself (three standard errors).
        assert (found >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / tables)).all(), world


def echo(toxicity: float, weight: float, shape: Callable[[np.ndarray], np.ndarray]) -> Draw:
    """Bias that repeats only because it is a function of true mean toxicity, with noise."""

    def draw(rng: np.random.Generator, heads: int) -> tuple[np.ndarray, np.ndarray]:
        _, true, noise, toxicity_noise = parts(rng, heads)
        mean_toxicity = np.sqrt(toxicity) * true + np.sqrt(1 - toxicity) * toxicity_noise
        return weight * shape(true) + noise, mean_toxicity

    return draw


def own_echo(rng: np.random.Generator, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Bias that echoes the mean toxicity of the very texts of its seed."""
    _, mean_toxicity = mixed(0.0)(rng, heads)
    return 2 * mean_toxicity + rng.normal(size=mean_toxicity.shape), mean_toxicity


def exact_echo(rng: np.random.Generator, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, but for rounding: no more than ranks of neighbours differ."""
    _, mean_toxicity = mixed(0.0)(rng, heads)
    return mean_toxicity + 1e-3 * rng.normal(size=mean_toxicity.shape), mean_toxicity


NOISE: dict[str, Draw] = {
    "noise, toxicity repeats": mixed(0.0),
    "noise, toxicity does not": mixed(0.0, toxicity=0.0),
    "the noise of toxicity": mixed(0.0, own=2.0),
}
ECHOES: dict[str, Draw] = {
    "of the seed's own texts": own_echo,
    "exact": exact_echo,
    "of true toxicity": echo(0.75, 1.5, lambda t: t),
    "of true toxicity that texts show badly": echo(0.5, 1.0, lambda t: t),
    "better than toxicity repeats itself": echo(0.5, 2.0, lambda t: t),
    "of both": mixed(0.0, echo=1.5, own=1.0),
    "exponential": echo(0.75, 1.0, np.exp),
    "cubic": echo(0.75, 0.5, lambda t: t**3),
}
PLANTED: dict[str, Draw] = {
    "toxicity repeats": mixed(0.8),
    "toxicity does not": mixed(0.8, toxicity=0.0),
    "the noise of toxicity is in bias": mixed(0.85, toxicity=0.5, own=0.3),
}


def verdicts(draw: Draw, heads: int, tables: int, key: str = "verdict") -> Counter[str]:
    rng = np.random.default_rng(heads)
    found: Counter[str] = Counter()
    for _ in range(tables):
        # So small an alpha prunes nothing: the overlap is no part of the verdict, and takes time.
        diagnosis = diagnose_axes([table(*draw(rng, heads))], alpha=0.001)
        found[diagnosis["axes"]["gender"][key]] += 1
    return found


@pytest.mark.parametrize("kind", ["noise", "echo", "planted"])
def test_a_few_tables_of_each_kind(kind: str) -> None:
    """The simulation tier has the rates; here a wrong rule shows at once."""
    for draw in {"noise": NOISE, "echo": ECHOES, "planted": PLANTED}[kind].values():
        found = verdicts(draw, 144, 10)
        more = found["more than noise"]
        assert more >= 7 if kind == "planted" else more <= 2, found


@pytest.mark.simulation
@pytest.mark.parametrize("heads", [24, 72, 144, 384])
@pytest.mark.parametrize("name", [*NOISE, *ECHOES])
def test_noise_and_echoes_are_hardly_ever_more_than_noise(name: str, heads: int) -> None:
    tables = 300 if heads < 384 else 200
    found = verdicts((NOISE | ECHOES)[name], heads, tables)
    print(name, heads, found)
    assert found["more than noise"] <= 0.05 * tables
    if name in ("of the seed's own texts", "of true toxicity", "of both") and heads >= 72:
        plain = verdicts(ECHOES[name], heads, 50, "verdict_with_toxicity")
        assert plain["more than noise"] >= 40, "the control: seeds do agree on an echo"


@pytest.mark.simulation
@pytest.mark.parametrize("heads", [72, 144, 384])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_ranking_is_found(name: str, heads: int) -> None:
    found = verdicts(PLANTED[name], heads, 300)
    print(name, heads, found)
    assert found["more than noise"] >= 0.8 * 300


@pytest.mark.simulation
@pytest.mark.parametrize("reliability", [0.5, 0.45])
def test_at_the_threshold_neither_verdict_is_common(reliability: float) -> None:
    """At 0.5 either would be wrong: 2.5% a side, of which one reliability of three may err."""
    found = verdicts(mixed(reliability), 144, 600)
    print(reliability, found)
    assert found["more than noise"] <= 0.025 * 600 + 3 * np.sqrt(0.025 * 600)
    if reliability == 0.5:
        assert found["noise"] <= 0.075 * 600
