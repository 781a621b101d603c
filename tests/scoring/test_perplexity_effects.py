"""Effects on perplexity: exact is exact, curvature follows it, windows are what they say."""

import importlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from levelhead.errors import TextError
from levelhead.models.surgery import prune_heads
from levelhead.progress import silent
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.perplexity_effects import text_windows, window_nll
from levelhead.testing import TINY_FAMILIES, tiny_model

module = importlib.import_module("levelhead.scoring.curvature")
"""The function of this name hides it in the package."""


@pytest.fixture(scope="module")
def trained():
    """A tiny model that has learnt a little, so that heads matter, and text it knows."""
    model = tiny_model("llama", seed=1)
    generator = torch.Generator().manual_seed(0)
    size = model.config.vocab_size
    follows = torch.randint(4, size, (size, 3), generator=generator)

    def text(rows: int, length: int) -> torch.Tensor:
        ids = torch.randint(4, size, (rows, length), generator=generator)
        for t in range(2, length):  # each token follows from the two before it, mostly
            choice = torch.randint(0, 3, (rows,), generator=generator)
            ids[:, t] = follows[ids[:, t - 2], choice]
        return ids

    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = window_nll(model, text(16, 32)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.requires_grad_(False).eval()
    return model, text(40, 32)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_exact_equals_pruning_each_head(family: str) -> None:
    assert family in TINY_FAMILIES
    model = tiny_model(family, num_layers=2)
    windows = torch.randint(4, 90, (3, 16), generator=torch.Generator().manual_seed(0))
    effects = PPL_ESTIMATORS["exhaustive"](model, windows, silent, 0, 0.3)
    with torch.no_grad():
        base = window_nll(model, windows)
    np.testing.assert_allclose(effects.base_nll, base.numpy(), rtol=1e-5)
    assert effects.perplexity == pytest.approx(math.exp(base.mean().item()), rel=1e-5)
    for layer, head in [(0, 1), (1, 0), (1, 5)]:
        pruned = tiny_model(family, num_layers=2)
        prune_heads(pruned, {layer: [head]})
        with torch.no_grad():
            change = window_nll(pruned, windows) - base
        got = effects.nll_change[:, layer, head]
        np.testing.assert_allclose(got, change.numpy(), atol=2e-5)
        other = effects.nll_change[:, layer, (head + 1) % 6]
        assert np.abs(other - change.numpy()).max() > 1e-4, "control: another head differs"


def test_curvature_ranks_heads_as_exact_ablation_does(trained) -> None:
    model, windows = trained
    exact = PPL_ESTIMATORS["exhaustive"](model, windows, silent, 0, 0.3)
    fast = PPL_ESTIMATORS["curvature"](model, windows, silent, 0, 0.3)
    rho = stats.spearmanr(exact.effect.ravel(), fast.effect.ravel()).statistic
    assert rho > 0.7
    wrong = stats.spearmanr(exact.effect.ravel(), fast.effect[::-1].ravel()).statistic
    assert wrong < rho - 0.3, "control: heads of other layers"
    assert fast.effect.min() < 0, "some heads are needed"
    assert fast.fisher is not None
    assert (fast.fisher >= 0).all()
    assert fast.diagnostics["calibration"] > 0


def test_the_race_protects_the_exhaustive_set_for_less(trained) -> None:
    model, windows = trained
    exhaustive = PPL_ESTIMATORS["exhaustive"](model, windows, silent, 0, 0.3)
    raced = PPL_ESTIMATORS["exact"](model, windows, silent, 0, 0.3)
    count = int(0.3 * raced.effect.size)

    def protected(effect: np.ndarray) -> set[int]:
        return set(np.argsort(effect, axis=None)[:count].tolist())

    assert protected(raced.effect) == protected(exhaustive.effect)
    wrong = PPL_ESTIMATORS["exact"](model, windows[:4], silent, 0, 0.3)
    assert protected(wrong.effect) != protected(exhaustive.effect), "control: other text"
    assert raced.diagnostics["share_of_exhaustive"] < 0.9
    assert raced.perplexity == pytest.approx(exhaustive.perplexity, rel=1e-5)
    assert (raced.stderr > 0).all()
    z = (raced.effect - exhaustive.effect) / raced.stderr
    assert np.mean(np.abs(z) < 2) > 0.85, "few windows of a head give a t distribution"
    assert np.abs(z).max() < 6


@pytest.mark.parametrize("name", PPL_ESTIMATORS)
def test_halves_are_estimates_of_their_own(trained, name: str) -> None:
    model, windows = trained
    effects = PPL_ESTIMATORS[name](model, windows, silent, 0, 0.3)
    halves = effects.halves(np.random.default_rng(0), 5)
    assert halves.shape == (5, 2, *effects.effect.shape)
    assert np.isfinite(halves).all()
    rho = [stats.spearmanr(one.ravel(), other.ravel()).statistic for one, other in halves]
    assert 0.5 < np.mean(rho) < 0.999, "much the same, and not from the same windows"
    np.testing.assert_allclose(halves.mean((0, 1)), effects.effect, atol=5 * effects.stderr.max())


def test_stretches_of_positions_give_the_fisher_value_with_less_noise(trained, monkeypatch) -> None:
    model, windows = trained

    def fisher(stretch: int, seed: int) -> np.ndarray:
        monkeypatch.setattr(module, "STRETCH", stretch)
        found = module.derivatives(model, windows[:8], silent, seed)
        return found.fisher.mean(0)

    whole = np.array([fisher(32, seed) for seed in range(12)])
    short = np.array([fisher(4, seed) for seed in range(12)])
    ratio = short.mean(0) / whole.mean(0)
    assert 0.8 < np.median(ratio) < 1.25
    assert np.median(short.std(0)) < 0.8 * np.median(whole.std(0))


def test_noisy_gradients_are_shrunk_and_clear_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    fisher = rng.gamma(2.0, 1.0, (5, 40))
    true = np.sqrt(fisher) * rng.standard_normal((5, 40))
    noise = np.where(np.arange(40) < 20, 0.1, 10.0) * rng.standard_normal((16, 5, 40))
    plain, found = (true + noise).mean(0), module.shrunk(true + noise, fisher).mean(0)
    clear, noisy = np.s_[:, :20], np.s_[:, 20:]
    np.testing.assert_allclose(found[clear], plain[clear], atol=0.02)
    assert ((found - true)[noisy] ** 2).mean() < 0.5 * ((plain - true)[noisy] ** 2).mean()
    alone = module.shrunk(noise[..., 20:], fisher[noisy]).mean(0)
    assert alone.std() < 0.5 * plain[noisy].std(), "control: nothing but noise"


def test_curvature_depends_on_its_seed_only_through_labels(trained) -> None:
    model, windows = trained
    first, again, other = (
        PPL_ESTIMATORS["curvature"](model, windows[:8], silent, seed, 0.3) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.nll_change, again.nll_change)
    assert not np.array_equal(first.nll_change, other.nll_change)


def test_windows_do_not_overlap_and_short_text_is_refused() -> None:
    model = tiny_model("gpt2")
    windows = text_windows(list(range(200)), model, 200)
    flat = windows.flatten().tolist()
    assert flat == list(range(len(flat)))
    assert len(flat) > 150
    assert text_windows(list(range(400)), model, 400).shape == (16, 25)
    assert text_windows(list(range(400)), model, 16_384).shape == (16, 25), "as long as the text"
    with pytest.raises(TextError, match="20 tokens"):
        text_windows(list(range(20)), model, 16_384)
