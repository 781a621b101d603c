"""Repair whose target is the subgroups' average: what differs between them is not rebuilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.rounding import FAR, SAME, difference

from levelhead.errors import ConfigError, PromptError
from levelhead.models.averaging import Averager
from levelhead.models.calibration import CalibrationText, TextReader, projections
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.least_squares import read_weight
from levelhead.models.lora import write_lora
from levelhead.models.repair import Repairer, repair_of, same_repair
from levelhead.models.units import ablate_units, prune_units
from levelhead.progress import silent
from levelhead.records import HeadSelection, Unit
from levelhead.scoring.matched_moments import matched_contexts, toxicity_of_words
from levelhead.scoring.matched_reader import MatchedReader
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.testing import tiny_model

HEADS = HeadSelection.of([(0, 1), (0, 4), (2, 3)])
NEURONS = HeadSelection.of([(0, n) for n in range(0, 40, 3)] + [(2, 1)], unit="neuron")
IDS = torch.tensor([[1, *range(10, 40)]])
DRAWN = torch.randint(4, 200, (3_000,), generator=torch.Generator().manual_seed(0)).tolist()
TEXT = CalibrationText(name="t", sha256="0" * 64, split="validation", tokens=tuple(DRAWN))
# peft calls by the old name what transformers has renamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def problem(request: pytest.FixtureRequest, make_problem: Any) -> BiasProblem:
    model = tiny_model(request.param).requires_grad_(False)
    return replace(make_problem(samples=1), model=model)


@pytest.fixture(scope="module")
def texts(problem: BiasProblem) -> SampledTexts:
    return sample_texts(problem, silent, "sampling")


def averager(problem: BiasProblem, texts: SampledTexts, unit: Unit, **options: Any) -> Averager:
    contexts = matched_contexts(problem, texts, silent, unit=unit, **options)
    reader = TextReader(problem.model, (TEXT,), bos=1)
    return Averager(
        model=problem.model,
        text=dict(reader.grams(unit, sorted(contexts.moments))),
        texts=reader.to_json(),
        contexts={"gender": contexts},
        unit=unit,
    )


def matched_reader(problem: BiasProblem, texts: SampledTexts, **options: Any) -> MatchedReader:
    return MatchedReader([problem], lambda _: texts, **options)


def repairer(problem: BiasProblem, averaging: MatchedReader | None, **options: Any) -> Repairer:
    return Repairer(problem.model, (TEXT,), bos=1, averaging=averaging, **options)


@pytest.mark.parametrize("chosen", [HEADS, NEURONS], ids=["heads", "neurons"])
def test_less_of_the_differences_is_rebuilt_and_every_step_holds_it(
    chosen: HeadSelection, problem: BiasProblem, texts: SampledTexts, tmp_path: Path
) -> None:
    collected = matched_reader(problem, texts)
    unread = repairer(problem, collected, strength=30).identity(chosen.unit)
    plain = repairer(problem, None).repair(chosen)
    grouped = repairer(problem, collected, strength=30).repair(chosen)
    sites = projections(problem.model, chosen.unit)
    for layer in (0, 2):
        moments, kept = collected.matched(chosen.unit, layer, [layer]), grouped.kept[layer]
        spread = moments.gram - moments.cross
        old, own, new = (
            read_weight(sites[layer])[:, kept], plain.weights[layer], grouped.weights[layer],
        )  # fmt: skip
        power = [float(((w @ spread[kept][:, kept]) * w).sum()) for w in (old, own, new)]
        assert power[2] < 0.7 * min(power[:2]), "control: least squares of its own output"
    record = grouped.record
    assert (record["method"], record["target"]) == ("group-averaged", "group average")
    assert record["lambda"] == 30
    assert record["axes"]["gender"]["groups"] == 12
    assert record["axes"]["gender"]["positions"] > 100
    assert same_repair(record, unread), "known before any context was read"
    assert not same_repair(record, plain.record)
    assert not same_repair(record, repairer(problem, collected, strength=3).identity(chosen.unit))
    assert same_repair(record, repairer(problem, collected, strength=30).identity(chosen.unit))
    model = tiny_model(problem.model.config.model_type)
    with torch.no_grad():
        whole = model(IDS).logits
        with grouped.applied(model), ablate_units(model, chosen.unit, chosen.by_layer):
            expected = model(IDS).logits
        prune_units(model, chosen, grouped)
        assert difference(model(IDS).logits, expected) < SAME
        assert difference(whole, expected) > FAR
        again = load(save_pruned(model, tmp_path / "m"))
        assert difference(again(IDS).logits, expected) < SAME
    assert repair_of(again) == record


def test_down_projections_are_averaged_without_removing_anything(
    problem: BiasProblem, texts: SampledTexts, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    tau = TokenToxicity(np.array([35]), np.array([[0.8]]), 0)
    collected = averager(problem, texts, "neuron", quantity=toxicity_of_words(tau))
    edit = collected.edit(strength=10, rank=2, protected={0: [0, 7]})
    assert not edit.changes[0].dense[:, [0, 7]].any()
    assert max(edit.record["left"].values()) < 1
    model = tiny_model(problem.model.config.model_type)
    with torch.no_grad():
        whole = model(IDS).logits
        with edit.applied(model):
            expected = model(IDS).logits
        assert difference(whole, expected) > SAME
        folder = write_lora(edit, model, tmp_path / "lora")
        adapted = peft.PeftModel.from_pretrained(model, folder).eval()
        assert difference(adapted(IDS).logits, expected) < SAME
        assert difference(adapted.merge_and_unload()(IDS).logits, expected) < SAME


@pytest.mark.parametrize("chosen", [HEADS, NEURONS], ids=["heads", "neurons"])
def test_little_memory_changes_nothing(
    chosen: HeadSelection, problem: BiasProblem, texts: SampledTexts
) -> None:
    """Whatever is read together, and whether it was read for another set of heads before."""
    whole, small = matched_reader(problem, texts), matched_reader(problem, texts, most_bytes=1)
    repairer(problem, whole).repair(HeadSelection.of([(1, 2)], unit=chosen.unit))
    found = [repairer(problem, one).repair(chosen) for one in (whole, small)]
    assert found[0].record == found[1].record
    for layer in (0, 2):
        assert torch.equal(found[0].weights[layer], found[1].weights[layer])
    assert len(small._moments) == 1 < len(whole._moments)


def test_what_is_not_kept_is_sampled_as_the_run_samples_it(
    problem: BiasProblem, texts: SampledTexts
) -> None:
    kept, sampled = matched_reader(problem, texts), MatchedReader([replace(problem, samples=3)])
    assert sampled.identity() == kept.identity()
    found = [repairer(problem, one).repair(HEADS) for one in (kept, sampled)]
    assert found[0].record == found[1].record
    assert torch.equal(found[0].weights[2], found[1].weights[2])


def test_axes_stand_side_by_side(problem: BiasProblem, texts: SampledTexts) -> None:
    again = replace(problem, prompts=tuple(replace(p, axis="again") for p in problem.prompts))
    both = MatchedReader([problem, again], lambda _: texts)
    one = matched_reader(problem, texts)
    found = [repairer(problem, reader).repair(HEADS) for reader in (one, both)]
    assert list(found[1].record["axes"]) == ["gender", "again"]
    assert torch.allclose(found[0].weights[2], found[1].weights[2], rtol=1e-9)
    assert not same_repair(found[0].record, found[1].record)


def test_what_cannot_be_averaged_is_refused(problem: BiasProblem, texts: SampledTexts) -> None:
    one = matched_reader(problem, texts)
    with pytest.raises(ConfigError, match="lambda=0: it must be"):
        repairer(problem, one, strength=0)
    repairer(problem, one).check(HEADS)  # control
    apart = [replace(p, variant=n) for n, p in enumerate(problem.prompts)]
    alone = matched_reader(replace(problem, prompts=tuple(apart)), texts)
    with pytest.raises(PromptError, match="no matched groups among"):
        repairer(problem, alone).check(HEADS)
    assert alone._positions == {}, "before any work"
