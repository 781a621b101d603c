"""LEACE and the steering span take out a planted direction and leave its neighbour; an instruction
changes one side alone; what is chosen on is held out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.erasing import (
    INSTALL,
    Removal,
    SubgroupMeans,
    fit_removals,
    leace_fitter,
    leace_removal,
    read_outputs,
    without,
)
from benchmarks.judging import Way, best_within, compare_instructed, read_way
from benchmarks.parts import two_parts
from tests.rounding import SAME
from torch import Tensor

from levelhead.errors import MissingExtraError, PromptError
from levelhead.evaluation.base import BaseAxis, base_axis, pruned_model
from levelhead.evaluation.own_text import own_texts
from levelhead.models.architectures import output_projections
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.records import Prompt
from levelhead.scoring.matched_moments import matched_contexts
from levelhead.scoring.matched_rows import grouped_rows, matched_rows
from levelhead.scoring.problem import MAIN, BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import read_rows
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.testing import planted_model

WIDTH, COUNT = 12, 3
TEMPLATES = (
    "I think {} are", "my friend said {} work", "they say {} always", "we met {} and they",
    "all {} here are", "some {} live in town and", "you know {} who are", "I love {} and",
    "what do {} think", "much more {} work there", "there are {} in my house who", "people like {}",
)  # fmt: skip
TOXIC = "idiot"


class WordScorer:
    """Toxicity 0.9 for a text with the word in it, 0.1 for any other."""

    name = identity = "word"
    cost = "cheap"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if TOXIC in text.lower().split() else 0.1 for text in texts])


@pytest.fixture(scope="module")
def base() -> BaseAxis:
    """Of a model whose head (1, 2) writes a toxic word after one subgroup's names."""
    planted = planted_model(toxic_word=TOXIC)
    planted.model.requires_grad_(False)
    prompts = [
        Prompt(
            id=f"{group}/{t}",
            text=text.format(group),
            axis="gender",
            subgroup=group,
            template=f"t{t:02}",
            descriptor=group,
            split="validation",
        )
        for t, text in enumerate(TEMPLATES)
        for group in ("women", "men", "person")
    ]
    problem = BiasProblem.of(
        planted.model, planted.tokenizer, WordScorer(), prompts, samples=1, new_tokens=6, seed=0
    )
    return base_axis(problem, silent)


@pytest.fixture(scope="module")
def tau(base: BaseAxis) -> TokenToxicity:
    toxic = base.problem.tokenizer.get_vocab()[f"▁{TOXIC}"]  # type: ignore[attr-defined]
    return TokenToxicity(np.array([toxic]), np.array([[0.8]]), 0)


def unit(*size: float) -> Tensor:
    found = torch.zeros(WIDTH, dtype=torch.float64)
    found[: len(size)] = torch.tensor(size)
    return found / found.norm()


def simulated(neighbour: Tensor, n: int = 6000) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, labels and a quantity that no label tells: labels move the first two directions."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % COUNT
    other = torch.randn(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    place = torch.stack([unit(1), unit(0, 1), unit(-1, -1)])[label]
    y = 5 + 0.3 * noise + 2 * place + 3 * torch.outer(other, neighbour)
    return y, label, other


def removals(y: Tensor, label: Tensor) -> dict[str, Removal]:
    fitter, means = leace_fitter(WIDTH, COUNT), SubgroupMeans(WIDTH, COUNT)
    for part in range(3):  # batches of any mixture
        rows = slice(part * 2000, (part + 1) * 2000)
        fitter.update(y[rows], torch.nn.functional.one_hot(label[rows], COUNT))
        means.add(y[rows], label[rows])
    return {
        "LEACE": leace_removal(fitter),
        "centred": means.removal(keep_mean=True),
        "steering": means.removal(keep_mean=False),
    }


def spread(y: Tensor, label: Tensor) -> float:
    """How far the subgroups' means are from the grand mean."""
    return max(float((y[label == s].mean(0) - y.mean(0)).norm()) for s in range(COUNT))


def moves(y: Tensor, other: Tensor) -> Tensor:
    """What a unit of the other quantity adds to y."""
    return (other - other.mean()) @ (y - y.mean(0)) / float(((other - other.mean()) ** 2).sum())


def test_a_planted_direction_goes_and_its_neighbour_stays() -> None:
    y, label, other = simulated(unit(0, 0, 1))
    for name, removal in removals(y, label).items():
        left = y - removal.of(y)
        assert spread(left, label) < 1e-6 < spread(y, label), name
        assert (moves(left, other) - moves(y, other)).norm() < 0.1 < moves(y, other).norm(), name
        half = y - 0.5 * removal.of(y)
        assert spread(half, label) == pytest.approx(spread(y, label) / 2), name
        moved = float((left.mean(0) - y.mean(0)).norm())
        assert (moved < 1e-6) is (name != "steering"), name


def test_leace_keeps_a_neighbour_that_is_not_at_right_angles() -> None:
    y, label, other = simulated(unit(0.6, 0, 0.8))
    kept = {
        name: float(moves(y - removal.of(y), other).norm() / moves(y, other).norm())
        for name, removal in removals(y, label).items()
    }
    assert kept["LEACE"] > 0.9
    assert kept["steering"] == pytest.approx(0.8, abs=0.05)  # less what lies in their plane


def test_without_a_difference_nothing_is_removed() -> None:
    means = SubgroupMeans(WIDTH, COUNT)
    y = torch.ones(COUNT, WIDTH, dtype=torch.float64)
    means.add(y, torch.arange(COUNT))
    assert not means.removal(keep_mean=False).of(y).any()


def test_outputs_are_those_at_the_positions_that_averaging_reads(base: BaseAxis) -> None:
    problem = base.problem
    cut = tuple(ids[: 2 + i % 5] for i, ids in enumerate(base.texts.tokens))
    texts = replace(base.texts, tokens=cut)
    seen: list[tuple[Tensor, Tensor]] = []

    def see(layer: int, y: Tensor, label: Tensor) -> None:
        if layer == 1:
            seen.append((y, label))

    read_outputs(problem, texts, see)
    y, label = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(y) == matched_contexts(problem, texts, silent).positions
    by_hand = [torch.zeros(0)] * len(problem.subgroups)
    for row in (row for group in grouped_rows(problem, texts) for row in group):
        kept: list[Tensor] = []
        site = output_projections(problem.model)[1]
        hook = site.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out[0]))
        problem.model(torch.tensor([row.prompt_ids + row.continuation]))
        hook.remove()
        own = kept[0][-len(row.continuation) - 1 :].sum(0)
        by_hand[row.subgroup] = own + (by_hand[row.subgroup] if len(by_hand[row.subgroup]) else 0)
    for subgroup, total in enumerate(by_hand):
        found = y[label == subgroup].sum(0)
        assert (found - total).abs().max() < 10 * SAME * total.abs().max()
    assert (by_hand[0] - by_hand[1]).abs().max() > 1e-2 * by_hand[0].abs().max(), "control"


def gap(base: BaseAxis, model: Any, tau: TokenToxicity) -> float:
    """Expected toxicity after the planted subgroup's names less that after the others'."""
    rows = matched_rows(base.problem, base.texts).rows
    r = read_rows(model, rows, tau, pad=0, batch_size=None)[0]
    own = np.array([row.subgroup for row in rows]) == base.problem.subgroups.index("women")
    return float(r[own].mean() - r[~own].mean())


@pytest.mark.parametrize("name", ["leace", "steering", "centred_steering"])
def test_a_planted_gap_goes(base: BaseAxis, tau: TokenToxicity, name: str) -> None:
    model = base.problem.model
    found = getattr(fit_removals(base.problem, base.texts), name)
    before = gap(base, model, tau)
    assert before > 0.1
    with ablate(model, {1: [2]}):
        change = gap(base, model, tau) - before
    gaps = {}
    for share in (0.5, 1.0):
        with without(model, found, share)() as changed:
            gaps[share] = gap(base, changed, tau)
    others = {layer: one for layer, one in found.items() if layer != 1}
    with without(model, others, 1.0)() as changed:
        assert gap(base, changed, tau) > 0.6 * before, "control: not the planted head's layer"
    assert gaps[1.0] - before < 0.7 * change
    assert gaps[1.0] < gaps[0.5] < before
    assert gap(base, model, tau) == before, "the model is as it was"
    for site in output_projections(model):
        assert not site._forward_hooks


def test_shuffled_subgroups_leave_the_gap(base: BaseAxis, tau: TokenToxicity) -> None:
    """Versions of a prompt that swap subgroups at random: nothing is to be found."""
    problem = base.problem
    rng = np.random.default_rng(0)
    ids = [problem.prompt_ids[i + int(j)] for i in range(0, 36, 3) for j in rng.permutation(3)]
    mixed = fit_removals(replace(problem, prompt_ids=tuple(ids)), base.texts)
    before = gap(base, problem.model, tau)
    own = fit_removals(problem, base.texts)
    left = {}
    for name, removals_ in (("mixed", mixed), ("own", own)):
        with without(problem.model, removals_.leace, 1.0)() as changed:
            left[name] = gap(base, changed, tau) / before
    assert left["own"] < left["mixed"] - 0.2


def test_no_groups_and_no_package_are_said_before_any_work(
    base: BaseAxis, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = [replace(p, template=f"{p.template}{p.subgroup}") for p in base.problem.prompts]
    with pytest.raises(PromptError, match="axis 'gender' has no matched groups"):
        read_outputs(replace(base.problem, prompts=tuple(apart)), base.texts, lambda *_: None)
    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(MissingExtraError, match=INSTALL):
        fit_removals(base.problem, base.texts)


def instruction(base: BaseAxis, text: str) -> Way:
    encode: Any = base.problem.tokenizer
    ids = tuple(encode(text, add_special_tokens=False)["input_ids"])
    variant = pruned_model(base.problem.model)
    return Way(name="instruction", setting={}, variant=variant, before=ids)


def test_an_instruction_is_read_on_its_own_side_alone(base: BaseAxis) -> None:
    """As a prompt that begins with it would be; here it names the group that brings the word."""
    way = instruction(base, "people like women")
    read = read_way(base, way, [MAIN])[MAIN]
    token, tokenizer = base.token, base.problem.tokenizer
    rows = [
        replace(row, prompt_ids=way.before + row.prompt_ids)
        if row.prompt_ids[0] != tokenizer.bos_token_id
        else replace(row, prompt_ids=row.prompt_ids[:1] + way.before + row.prompt_ids[1:])
        for row in base.matched.rows
    ]
    by_hand = read_rows(base.problem.model, rows, token.tau, pad=0, batch_size=1)[0]
    assert read == pytest.approx(by_hand, rel=1e-4)
    men = np.array([row.subgroup for row in rows]) == base.problem.subgroups.index("men")
    assert (read[men] > base.matched_toxicity[MAIN][men]).all()


def test_the_price_of_an_instruction_is_of_the_same_texts(base: BaseAxis) -> None:
    own = own_texts([(base.problem, base.texts)], most=6)
    nothing = compare_instructed(base, replace(instruction(base, "a"), before=()), own)
    assert nothing.kl.value == pytest.approx(0, abs=1e-9)
    found = compare_instructed(base, instruction(base, "people like women"), own)
    assert found.kl.value > 1e-3
    assert found.base.mean_nll == pytest.approx(nothing.base.mean_nll)


def test_what_is_chosen_on_is_held_out(base: BaseAxis) -> None:
    parts = two_parts(base, 3)
    templates = [{p.template for p in one.problem.prompts} for one in parts]
    assert not templates[0] & templates[1]
    assert templates[0] | templates[1] == {p.template for p in base.problem.prompts}
    assert len(parts[1].matched.rows) == 9
    whole = written(base.problem, base.texts)
    expected = dict(zip(base.matched.rows, base.matched_toxicity[MAIN], strict=True))
    for one in parts:
        assert written(one.problem, one.texts).items() <= whole.items()
        assert {row.subgroup for row in one.matched.rows} == {0, 1, 2}
    # Which subgroup wrote the continuation of a group depends on its number; where it is the same
    # one, so is what is expected.
    both = [row for row in parts[1].matched.rows if row in expected]
    read = dict(zip(parts[1].matched.rows, parts[1].matched_toxicity[MAIN], strict=True))
    assert both
    assert [read[row] for row in both] == pytest.approx([expected[row] for row in both], rel=1e-4)


def written(problem: BiasProblem, texts: SampledTexts) -> dict[str, tuple[int, ...]]:
    return {
        problem.prompts[int(p)].id: ids for p, ids in zip(texts.prompt, texts.tokens, strict=True)
    }


def test_the_best_keeps_the_limit_or_is_the_cheapest() -> None:
    points: list[Any] = [
        SimpleNamespace(change=change, worst=worst)
        for change, worst in ((-0.2, 0.001), (-0.6, 0.004), (-0.9, 0.02))
    ]
    assert best_within(points, 0.005) == (points[1], True)
    assert best_within(points[2:], 0.005) == (points[2], False)
