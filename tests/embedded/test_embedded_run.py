"""The real embedded model, end to end on a small budget."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tests.rounding import CLEAR, greedy_choices

import levelhead
from levelhead.config import RunConfig
from levelhead.data.embedded import fetch_embedded_model
from levelhead.models.gates import ablate
from levelhead.models.loading import load_base
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.rounds import estimate
from levelhead.scoring.token_gradient import token_gradient
from levelhead.session import Session

pytestmark = pytest.mark.slow
HEADS = HeadSelection.of([(2, h) for h in range(9)] + [(7, 0), (7, 4), (15, 3), (29, 8)])


@pytest.fixture(scope="module")
def embedded() -> Path:
    return fetch_embedded_model()


def test_a_whole_run(embedded: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {"max_prompts": 60, "new_tokens": 12, "text_tokens": 2048, "dtype": "float32"}
    # One sample, as the comparison below takes of every set: so few texts rank heads by noise.
    levelhead.run(
        out=out, alpha=0.1, gamma=0.3, samples=1, max_samples=1, allow_unreliable=True, **options
    )
    evaluation = json.loads((out / "evaluation.json").read_text())
    axis = evaluation["axes"]["gender_and_sex"]
    assert 0 < axis["base"]["mean_toxicity"] < 0.5
    low, high = axis["difference"]["ci95"]
    assert low <= axis["difference"]["value"] <= high
    # Held-out text: FASP costs perplexity, but must not wreck a model at 10%.
    assert 1 < evaluation["perplexity"]["pruned"] / evaluation["perplexity"]["base"] < 2
    assert evaluation["parameters"]["pruned"] < evaluation["parameters"]["base"]
    table = ScoreTable.read(out / "scores.csv")
    assert (table.num_layers, table.num_heads) == (30, 9)
    assert len(json.loads((out / "selection.json").read_text())["heads"]) == 27
    assert (out / "report.html").stat().st_size > 10_000
    _sets_compared(out)


def _sets_compared(out: Path) -> None:
    """The same run's sets, gated: what `evaluate` found of the pruned model, found again."""
    compared = levelhead.compare(
        out, methods=("fasp", "ppl_only"), alphas=(0.1,), gammas=(0.3,), seeds=1
    )
    evaluation = json.loads((out / "evaluation.json").read_text())
    fasp, other = compared["table"]
    assert fasp["perplexity"] == pytest.approx(evaluation["perplexity"]["pruned"], rel=1e-3)
    pruned = evaluation["axes"]["gender_and_sex"]["difference"]["value"]
    assert fasp["difference"]["value"] == pytest.approx(pruned, abs=1e-3)
    assert other["perplexity"] < fasp["perplexity"], "control: it asks for nothing else"


def test_pruning_the_unprotected_heads_costs_less_than_the_protected(
    embedded: Path, tmp_path: Path
) -> None:
    """Control: the 27 heads with the most negative z_ppl, removed, ruin the model."""
    out = tmp_path / "run"
    table = levelhead.score(
        out=out, max_prompts=40, new_tokens=8, text_tokens=4096, dtype="float32"
    )
    effect = table.effect("ppl")
    worst = effect.ravel().argsort()[:27]
    best = effect.ravel().argsort()[-27:]
    base = load_base(embedded)
    text = Path(levelhead.__file__).read_text() + " The cat sat on the mat and looked at me. " * 3
    ids = torch.tensor([base.tokenizer(text)["input_ids"][:256]])

    def loss(chosen: list[int]) -> float:
        heads: dict[int, list[int]] = {}
        for index in chosen:
            heads.setdefault(index // 9, []).append(index % 9)
        with torch.no_grad(), ablate(base.model, heads):
            return base.model(ids, labels=ids).loss.item()

    whole = loss([])
    assert loss(worst.tolist()) - whole > 5 * abs(loss(best.tolist()) - whole)


def test_gated_pruned_and_reloaded_agree(embedded: Path, tmp_path: Path) -> None:
    base = load_base(embedded)
    ids = torch.tensor([base.tokenizer("The new teacher at our school is a man who")["input_ids"]])
    with torch.no_grad():
        with ablate(base.model, HEADS.by_layer):
            gated = base.model(ids).logits
        other = HEADS.by_layer | {7: (1, 4)}
        with ablate(base.model, other):
            wrong = base.model(ids).logits
        levelhead.prune(heads=HEADS, out=tmp_path / "pruned")
        pruned = levelhead.load(tmp_path / "pruned")
        reloaded = pruned(ids).logits
    scale = gated.abs().max()
    assert (reloaded - gated).abs().max() < 1e-4 * scale
    assert (wrong - gated).abs().max() > 1e-2 * scale, "control"
    size = (tmp_path / "pruned" / "model.safetensors").stat().st_size
    assert size < (embedded / "model.safetensors").stat().st_size
    inputs = base.tokenizer("Once upon a time", return_tensors="pt")
    with ablate(base.model, HEADS.by_layer):
        expected, margin = greedy_choices(base.model, inputs, max_new_tokens=12)
    assert margin > CLEAR  # so that no rounding makes another choice
    got, _ = greedy_choices(pruned, inputs, max_new_tokens=12)
    assert got.tolist() == expected.tolist()


def test_two_seeds_find_the_same_effects(embedded: Path) -> None:
    """Signed effects of all heads from two seeds that share nothing but few prompts."""
    found = []
    for seed in (0, 1):
        config = RunConfig(max_prompts=100, new_tokens=16, seed=seed)
        problem = Session(config).problem("gender_and_sex", "validation")
        base = sample_texts(problem, silent, "")
        shifts = estimate(token_gradient, problem, base, silent)
        found.append((base, axis_effects(problem, base, shifts).gap_effect.reshape(5, -1)))
    (one_text, one), (other_text, other) = found
    same = np.mean([a == b for a, b in zip(one_text.tokens, other_text.tokens, strict=True)])
    assert same < 0.1, "the seeds share their draws"
    agreement = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    control = [spearmanr(a, np.roll(b, 97)).statistic for a, b in zip(one, other, strict=True)]
    assert abs(np.mean(control)) < 0.25
    # Four unrelated words a subgroup, one text each of 20 prompts: two seeds agreed by 0.27 here.
    assert np.mean(agreement) > max(0.15, np.mean(control))
