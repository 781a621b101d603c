"""Errors over templates and descriptors: wide enough where descriptors differ, in simulation."""

from dataclasses import replace

import numpy as np
import pytest

from levelhead.errors import PromptError
from levelhead.records import Prompt
from levelhead.scoring.effects import AxisEffects, axis_effects
from levelhead.scoring.problem import BiasProblem, SampledTexts, group_shifts

SUBGROUPS, DESCRIPTORS, TEMPLATES = 3, 8, 12
LAYERS, HEADS = 2, 6


@pytest.fixture(scope="module")
def problem(planted) -> BiasProblem:
    prompts = [
        Prompt(
            id=f"{s}/{d}/{t}",
            text=f"I think {('women', 'men', 'person')[s]}",
            axis="a",
            subgroup=f"s{s}",
            template=f"t{t:02}",
            descriptor=f"d{s}.{d}",
            split="test",
            variant=d,
        )
        for t in range(TEMPLATES)
        for s in range(SUBGROUPS)
        for d in range(DESCRIPTORS)
    ]
    return BiasProblem.of(planted.model, planted.tokenizer, None, prompts, samples=1)


def drawn(problem: BiasProblem, rng: np.random.Generator, spread: float) -> AxisEffects:
    """Effects of 0 in truth; every descriptor moves all heads' shifts by its own amount."""
    descriptor, subgroup, template = problem.descriptor, problem.subgroup, problem.template
    shape = (LAYERS, HEADS)
    of_descriptor = spread * rng.standard_normal((SUBGROUPS, DESCRIPTORS, *shape))
    of_template = 0.5 * rng.standard_normal((TEMPLATES, SUBGROUPS, *shape))
    place = np.array([p.variant for p in problem.prompts])
    rows = of_descriptor[subgroup, place] + of_template[template, subgroup]
    rows += rng.standard_normal(rows.shape)
    toxicity = np.array([0.9, 0.5, 0.1])[subgroup] + 0.01 * rng.standard_normal(len(subgroup))
    number = len(problem.prompts)
    base = SampledTexts(
        prompt=np.arange(number), sample=np.zeros(number, dtype=int), tokens=((),) * number,
        texts=("",) * number, toxicity=toxicity,
    )  # fmt: skip
    shifts = group_shifts(
        rows * 1e-3, subgroup, template, base.sample, SUBGROUPS, toxicity, toxicity, {}, descriptor
    )
    return axis_effects(problem, base, shifts)


def z_of(problem: BiasProblem, spread: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    found = [drawn(problem, rng, spread) for _ in range(40)]
    z = [e.effect / e.stderr for e in found]
    assert all((e.gap_effect_stderr > 0).all() for e in found)
    return np.concatenate([one.ravel() for one in z])


def test_two_way_errors_cover_random_descriptors_and_one_way_errors_do_not(
    problem: BiasProblem,
) -> None:
    both = z_of(replace(problem, two_way=True), 1.0)
    assert np.mean(np.abs(both) < 2) > 0.9
    control = z_of(problem, 1.0)
    assert np.mean(np.abs(control) < 2) < 0.75


def test_they_are_about_the_same_where_descriptors_do_not_differ(problem: BiasProblem) -> None:
    rng = np.random.default_rng(0)
    both = [drawn(replace(problem, two_way=True), rng, 0.0) for _ in range(10)]
    rng = np.random.default_rng(0)
    templates = [drawn(problem, rng, 0.0) for _ in range(10)]
    ratio = np.mean([(b.stderr / t.stderr).mean() for b, t in zip(both, templates, strict=True)])
    assert 1.0 <= ratio < 1.35
    assert all((b.stderr >= t.stderr - 1e-12).all() for b, t in zip(both, templates, strict=True))
    np.testing.assert_allclose(both[0].effect, templates[0].effect)
    assert both[0].clusters == TEMPLATES


def test_descriptors_are_always_told_apart(problem: BiasProblem) -> None:
    """By rankings that leave one out; standard errors take them as random only on request."""
    assert set(problem.descriptor) == set(range(DESCRIPTORS))
    assert problem.descriptors[1] == tuple(f"d1.{d}" for d in range(DESCRIPTORS))
    one = drawn(problem, np.random.default_rng(1), 1.0)
    both = drawn(replace(problem, two_way=True), np.random.default_rng(1), 1.0)
    assert one.clusters == TEMPLATES
    assert both.stderr.mean() > 1.3 * one.stderr.mean()
    np.testing.assert_array_equal(one.effect, both.effect)


def test_a_subgroup_of_one_descriptor_is_refused(planted, prompts) -> None:
    """`prompts` has one descriptor per subgroup: nothing to tell their spread from."""
    with pytest.raises(PromptError, match="--two-way takes descriptors as random"):
        BiasProblem.of(planted.model, planted.tokenizer, None, prompts, two_way=True)
    assert BiasProblem.of(planted.model, planted.tokenizer, None, prompts).two_way is False
