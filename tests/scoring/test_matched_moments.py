"""What is collected is what a plain reading of each text gives; a planted gap goes, by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.rounding import SAME
from torch import Tensor

from levelhead.errors import ConfigError, PromptError
from levelhead.models.architectures import output_projections, text_config
from levelhead.models.averaging import Averager, Contexts
from levelhead.models.calibration import CalibrationText, TextReader
from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.records import Prompt
from levelhead.scoring.matched_moments import matched_contexts, toxicity_of_words
from levelhead.scoring.matched_rows import grouped_rows, matched_rows
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.teacher_forcing import expected_toxicity, row_toxicity
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, WHOLE_LAYER_FAMILIES, tiny_model

Make = Callable[..., BiasProblem]


@pytest.fixture(scope="module")
def problem(make_problem: Make) -> BiasProblem:
    return make_problem(samples=1)


@pytest.fixture(scope="module")
def texts(problem: BiasProblem) -> SampledTexts:
    """Continuations of two to six tokens, so that rows end at different steps."""
    found = sample_texts(problem, silent, "sampling")
    cut = [ids[: 2 + i % 5] for i, ids in enumerate(found.tokens)]
    return replace(found, tokens=tuple(cut))


@pytest.fixture(scope="module")
def tau(problem: BiasProblem) -> TokenToxicity:
    """The planted model's one toxic word."""
    toxic = problem.tokenizer.get_vocab()["▁idiot"]  # type: ignore[attr-defined]
    return TokenToxicity(np.array([toxic]), np.array([[0.8]]), 0)


def by_hand(
    problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity, layer: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """A, B and G, one unpadded text at a time."""
    site = output_projections(problem.model)[layer]
    a = b = g = torch.zeros(1, dtype=torch.float64)
    table = torch.zeros(text_config(problem.model).vocab_size)
    table[torch.from_numpy(tau.token_ids)] = torch.from_numpy(tau.tau[0]).float()
    positions = 0
    for rows in grouped_rows(problem, texts):
        inputs = []
        for row in rows:
            seen: list[Tensor] = []

            def hook(_, args, output, seen=seen):  # type: ignore[no-untyped-def]
                zero = torch.zeros_like(output, requires_grad=True)
                seen.extend([args[0][0], zero])
                return output + zero

            handle = site.register_forward_hook(hook)
            logits = problem.model(torch.tensor([row.prompt_ids + row.continuation])).logits[0]
            handle.remove()
            last = len(row.continuation) + 1
            total = (logits[-last:-1].softmax(-1) @ table).sum()
            gradient = torch.autograd.grad(total, seen[1])[0][0, -last:].double()
            g = g + gradient.T @ gradient
            inputs.append(seen[0].detach()[-last:].double())
        mean = torch.stack(inputs).mean(0)
        for x in inputs:
            a, b = a + x.T @ x, b + mean.T @ x
            positions += len(x)
    return a / positions, b / positions, g / positions, positions


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *TINY_VARIANTS, *WHOLE_LAYER_FAMILIES])
def test_every_family_gives_what_plain_reading_gives(
    family: str, problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity
) -> None:
    other = replace(
        problem, model=tiny_model(family).requires_grad_(False), prompts=problem.prompts[:6]
    )
    other = replace(other, prompt_ids=problem.prompt_ids[:6], batch_size=6)
    some = replace(texts, prompt=texts.prompt[:6], sample=texts.sample[:6], tokens=texts.tokens[:6])
    found = matched_contexts(other, some, silent, quantity=toxicity_of_words(tau))
    plain = matched_contexts(other, some, silent, layers=[1])
    a, b, g, positions = by_hand(other, some, tau, 1)
    assert found.positions == plain.positions == positions
    assert (found.prompts, found.groups) == (6, 2)
    assert list(plain.moments) == [1]
    assert plain.readout == {}
    for one in (found, plain):
        moments = one.moments[1]
        assert (moments.gram - a).abs().max() < 10 * SAME * a.abs().max()
        assert (moments.cross - b).abs().max() < 10 * SAME * a.abs().max()
    assert (found.readout[1] - g).abs().max() < 1e-3 * g.abs().max()
    assert (a - b).abs().max() > 1e-3 * a.abs().max(), "control: subgroups differ"


def test_batches_change_nothing_and_no_hook_stays(
    problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity
) -> None:
    quantity = toxicity_of_words(tau)
    one, many = (
        matched_contexts(replace(problem, batch_size=n), texts, silent, quantity=quantity)
        for n in (1, 64)
    )
    for layer in range(3):
        for name in ("gram", "cross"):
            a, b = (getattr(c.moments[layer], name) for c in (one, many))
            assert (a - b).abs().max() < SAME * b.abs().max()
        a, b = one.readout[layer], many.readout[layer]
        assert (a - b).abs().max() < 1e-3 * b.abs().max()
    for site in output_projections(problem.model):
        assert not site._forward_hooks
        assert not site._forward_pre_hooks


def test_the_same_prompt_in_every_subgroup_owes_nothing(
    problem: BiasProblem, texts: SampledTexts
) -> None:
    """Beyond rounding: equal rows of a batch need not be computed alike (threads, oneDNN)."""
    alike = tuple(problem.prompt_ids[i - i % 3] for i in range(len(problem.prompts)))
    moved = []
    for one in (problem, replace(problem, prompt_ids=alike)):
        contexts = matched_contexts(one, texts, silent)
        edit = averager(problem, {"gender": contexts}).edit(strength=100)
        moved.append(max(float(change.dense.norm()) for change in edit.changes.values()))
        moments = contexts.moments.values()
        owed = [float((own.gram - own.cross).norm() / own.gram.norm()) for own in moments]
        assert (max(owed) < 1e-5) is (one is not problem)
    assert moved[1] < 1e-4 * moved[0]


def averager(problem: BiasProblem, contexts: dict[str, Contexts]) -> Averager:
    ids = torch.randint(4, 200, (2_000,), generator=torch.Generator().manual_seed(0)).tolist()
    text = CalibrationText(name="t", sha256="0" * 64, split="validation", tokens=tuple(ids))
    reader = TextReader(problem.model, (text,), bos=1)
    return Averager(
        model=problem.model,
        text=dict(reader.grams("head", range(3))),
        texts=reader.to_json(),
        contexts=contexts,
    )


def gap(problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity) -> float:
    """Expected toxicity after the planted subgroup's names less that after the others'."""
    rows = matched_rows(problem, texts).rows
    r = row_toxicity(problem.model, rows, tau, 0)
    own = np.array([row.subgroup for row in rows]) == problem.subgroups.index("women")
    return float(r[own].mean() - r[~own].mean())


def test_a_planted_gap_goes_by_the_directions_that_toxicity_reads(
    problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity
) -> None:
    """As far as without the head itself; and with shuffled labels nothing happens."""
    quantity = toxicity_of_words(tau)
    before = gap(problem, texts, tau)
    layer, head = 1, 2
    with ablate(problem.model, {layer: [head]}):
        without = gap(problem, texts, tau)
    assert before > 0.1
    changes = {}
    for target in ("average", "shuffled"):
        found = matched_contexts(problem, texts, silent, quantity=quantity, target=target)  # type: ignore[arg-type]
        one = averager(problem, {"gender": found})
        for rank in (1, None):
            edit = one.edit(strength=100, rank=rank, ridge=1e-3)
            with edit.applied(problem.model):
                changes[target, rank] = gap(problem, texts, tau) - before
    assert gap(problem, texts, tau) == before, "the model is as it was"
    for rank in (1, None):
        assert changes["average", rank] < 0.7 * (without - before)
        assert abs(changes["shuffled", rank]) < 0.25 * before
    found = matched_contexts(problem, texts, silent, quantity=quantity)
    others = averager(problem, {"gender": found})
    edit = others.edit(strength=100, rank=1, ridge=1e-3, layers=[0, 2])
    with edit.applied(problem.model):
        assert gap(problem, texts, tau) > 0.8 * before, "control: not the planted head's layer"


def test_any_function_of_logits_can_be_the_readout(
    problem: BiasProblem, texts: SampledTexts, tau: TokenToxicity
) -> None:
    """The logit of one word: its readout is another than that of toxicity."""
    read = {}
    for name, quantity in {
        "toxicity": toxicity_of_words(tau),
        "logit": lambda steps, rows: steps.logits[..., 7],
        "both": lambda steps, rows: expected_toxicity(steps, rows, tau) + steps.logits[..., 7],
    }.items():
        read[name] = matched_contexts(problem, texts, silent, quantity=quantity).readout[1]
        assert float(torch.linalg.eigvalsh(read[name]).min()) > -1e-6 * float(read[name].trace())
    correlation = torch.corrcoef(torch.stack([read["toxicity"].flatten(), read["logit"].flatten()]))
    assert abs(float(correlation[0, 1])) < 0.9


def test_contexts_to_keep_are_read_after_their_own_prompts(
    problem: BiasProblem, texts: SampledTexts
) -> None:
    kept = matched_contexts(problem, texts, silent, target="own")
    assert kept.groups == kept.prompts == len(problem.prompts)
    assert kept.positions == sum(len(ids) + 1 for ids in texts.tokens)
    assert torch.equal(kept.moments[0].gram, kept.moments[0].cross)
    matched = matched_contexts(problem, texts, silent)
    strong = averager(problem, {"gender": matched, "facts": kept})
    with pytest.raises(ConfigError, match="contexts to keep alone"):
        averager(problem, {"facts": kept})
    moved = [
        float(one.edit(strength=10, layers=[1]).changes[1].dense.norm())
        for one in (strong, averager(problem, {"gender": matched}))
    ]
    assert moved[0] < moved[1]


def test_without_matched_groups_or_with_one_subgroup_it_says_so(
    problem: BiasProblem, texts: SampledTexts, prompts: list[Prompt]
) -> None:
    apart = [replace(p, template=f"{p.template}{p.subgroup}") for p in problem.prompts]
    with pytest.raises(PromptError, match=r"axis 'gender' has no matched groups among 36 prompts"):
        matched_contexts(replace(problem, prompts=tuple(apart)), texts, silent)
    one = [replace(p, subgroup="women") for p in problem.prompts]
    with pytest.raises(PromptError, match=r"one subgroup \(women\): there is nothing to average"):
        matched_contexts(replace(problem, prompts=tuple(one)), texts, silent)
