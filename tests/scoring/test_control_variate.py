"""The control variate keeps means, takes more noise away than tau alone, and costs one pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from levelhead.models.gates import ablate
from levelhead.progress import silent
from levelhead.sampling import pad_id
from levelhead.scoring.control_variate import Columns, Path, fit_control, read_path
from levelhead.scoring.matched_rows import own_rows
from levelhead.scoring.problem import SampledTexts, sample_texts
from levelhead.scoring.teacher_forcing import continuation_logits, read_steps
from levelhead.scoring.token_model import (
    adjusted_toxicities,
    token_model,
    token_models,
    token_toxicity,
)
from levelhead.scoring.token_toxicity import logit
from levelhead.testing import COMMON_WORDS, planted_model

CURVES = ([-1.0, 0.0, 0.5, 0.0], [0.3, -2.0, 1.5, -0.5])


class Saturating:
    """A logistic curve of how many toxic words a text has: a second one adds little."""

    def __init__(self, cost="cheap", words=("idiot", "stupid", "damn"), each=4.0):
        self.cost, self.words, self.each = cost, words, each
        self.name = self.identity = f"saturating:{cost}:{words}"
        self.asked = 0

    def __call__(self, texts):
        self.asked += len(texts)
        count = [sum(text.lower().split().count(word) for word in self.words) for text in texts]
        return expit(-2.5 + self.each * np.array(count, dtype=float))


@pytest.fixture(params=["cheap", "expensive"])
def problem(request, make_problem, tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELHEAD_CACHE", str(tmp_path))
    return replace(make_problem(samples=4), scorer=Saturating(request.param))


def path_of(problem, texts, tau=None):
    tau = tau or token_toxicity(problem, texts)
    columns = Columns.of(tau, len(problem.tokenizer))
    rows = own_rows(problem, texts).rows
    read = read_steps(
        problem.model, rows, columns.table, pad=pad_id(problem.tokenizer), batch_size=None
    )
    return read_path(problem, problem.scorer, texts, rows, columns, read)


def every_ending(problem, start):
    """Texts of the first prompt that begin with `start` and go on with every token there is."""
    size = len(problem.tokenizer)
    tokens = tuple((*start, token) for token in range(size))
    texts = tuple(problem.texts(0, ids)[0] for ids in tokens)
    return SampledTexts(
        prompt=np.zeros(size, dtype=int), sample=np.arange(size), tokens=tokens, texts=texts,
        toxicity=problem.scorer(texts),
    )  # fmt: skip


@pytest.mark.parametrize("spelled", ["", "▁the", "▁idiot", "d", "▁idiot ▁damn"])
def test_every_feature_has_mean_zero_whatever_was_written(problem, planted, spelled) -> None:
    """Summed over all next tokens with their probabilities, not sampled."""
    tau = token_toxicity(problem, sample_texts(problem, silent, ""))
    start = problem.tokenizer.convert_tokens_to_ids(spelled.split())
    texts = every_ending(problem, start)

    def means(wrote, reads):
        """Mean of the last step under a model, read with another."""
        row = own_rows(problem, texts).rows[:1]
        with torch.no_grad(), ablate(problem.model, wrote):
            p = continuation_logits(problem.model, row, 0).logits[0, -1].softmax(-1).numpy()
        with ablate(problem.model, reads):
            path = path_of(problem, texts, tau)
        last = np.arange(len(path.text)) % (len(start) + 1) == len(start)
        alone = replace(
            path, text=path.text[last], tau=path.tau[last], share=path.share[last],
            level=path.level[last], surprise=path.surprise[last],
        )  # fmt: skip
        return np.array([p @ alone.features(np.array(curve)) for curve in CURVES])

    layer, head = planted.head
    spread = np.abs(path_of(problem, texts, tau).features(np.array(CURVES[0]))).max(0)
    assert (spread > 0.01).all(), "the features are not simply 0"
    np.testing.assert_allclose(means({}, {}), 0, atol=1e-5)
    assert np.abs(means({layer: [head]}, {})).max() > 1e-4, "of another model they are not"


@pytest.mark.parametrize(("cost", "gain"), [("cheap", 0.2), ("expensive", 0.2)])
def test_more_noise_is_removed_than_by_tau_alone(make_problem, cost, gain) -> None:
    """Whole words only; the first toxic one makes a text toxic, a second adds little."""
    problem = make_problem(samples=16, new_tokens=8)
    scorer = Saturating(cost, words=COMMON_WORDS[:40])
    model = planted_model(strength=0).model
    letters = [i for i in range(len(problem.tokenizer))
               if len(problem.tokenizer.convert_ids_to_tokens(i)) == 1]  # fmt: skip
    with torch.no_grad():  # the first coordinate of a hidden state is the same for all tokens
        model.get_parameter("lm_head.weight")[letters, 0] = -10
    problem = replace(problem, scorer=scorer, model=model)
    base = sample_texts(problem, silent, "")
    token = token_model(problem, base, silent)
    assert token.noise_removed > token.r_squared + gain
    moved = token.adjusted - base.toxicity
    assert abs(moved.mean()) < 4 * moved.std() / np.sqrt(len(moved))


def test_another_models_texts_keep_their_mean(problem, planted) -> None:
    problem = replace(problem, samples=16)
    token = token_model(problem, sample_texts(problem, silent, ""), silent)
    layer, head = planted.head
    with ablate(problem.model, {layer: [head]}):
        other = sample_texts(problem, silent, "")
        own = token.adjust(problem, other, silent)
    foreign = token.adjust(problem, other, silent)
    error = (own - other.toxicity).std() / np.sqrt(len(own))
    assert own.var() < other.toxicity.var()
    assert abs(own.mean() - other.toxicity.mean()) < 4 * error
    assert abs(foreign.mean() - other.toxicity.mean()) > 4 * error, "read with another model"


def test_several_scorers_share_one_pass(make_problem) -> None:
    problem = make_problem(samples=3)
    scorers = {"main": Saturating(), "second": Saturating(words=("hate", "idiot"), each=2.0)}
    base = sample_texts(problem, silent, "")
    texts = {name: base.read_by(scorer, problem) for name, scorer in scorers.items()}

    def passes(work):
        count = 0

        def counted(*_):
            nonlocal count
            count += 1

        hook = problem.model.register_forward_hook(counted)
        try:
            return work(), count
        finally:
            hook.remove()

    def one(name):
        return token_models(
            problem, {name: texts[name]}, {name: scorers[name]}, silent
        )[name]  # fmt: skip

    single, alone = passes(lambda: adjusted_toxicities(
        problem, {"main": texts["main"]}, {"main": one("main")}, silent))  # fmt: skip
    models = token_models(problem, texts, scorers, silent)
    both, together = passes(lambda: adjusted_toxicities(problem, texts, models, silent))
    taus = alone - together  # `one` also asks which tokens are likely, and reads
    assert taus > 0
    for name, model in models.items():
        np.testing.assert_allclose(model.adjusted, one(name).adjusted, atol=1e-5)
        np.testing.assert_allclose(both[name], model.adjusted, atol=1e-9)
    np.testing.assert_allclose(single["main"], both["main"], atol=1e-5)
    assert together == passes(lambda: path_of(problem, base, models["main"].tau))[1]


def simulated(rng, templates=12, each=2, steps=10):
    """Texts whose toxicity is skew in their words: what fools a fit on the texts themselves."""
    n = templates * each
    text = np.repeat(np.arange(n), steps)
    words = rng.exponential(size=(n * steps, 1)) - 1
    sums = np.bincount(text, words[:, 0])
    path = Path(
        text=text, texts=n, template=np.repeat(np.arange(templates), each),
        share=np.tile(np.arange(1, steps + 1) / steps, n), tau=words[:, 0], expected=np.zeros(n),
        level=rng.normal(size=n * steps), grid=np.array([1.0]), surprise=words,
    )  # fmt: skip
    z = sums / np.sqrt(steps)
    return path, 2 * z + z**2  # mean exactly 1


def test_the_mean_is_kept_in_hundreds_of_small_worlds() -> None:
    rng = np.random.default_rng(0)
    honest, greedy, plain = [], [], []
    for _ in range(500):
        path, toxicity = simulated(rng)
        control = fit_control(path, toxicity, np.zeros(path.texts, dtype=int))
        honest.append((toxicity - control.noise(path)).mean() - 1)
        m = path.tau_surprise
        slope = (m - m.mean()) @ toxicity / ((m - m.mean()) @ m)
        greedy.append((toxicity - slope * m).mean() - 1)
        plain.append(toxicity.mean() - 1)
    error = np.std(honest) / np.sqrt(len(honest))
    assert abs(np.mean(honest)) < 4 * error
    assert abs(np.mean(greedy)) > 4 * error, "a fit on the same texts moves the mean"
    assert np.std(honest) < np.std(plain)


def test_parts_do_not_see_themselves() -> None:
    """Coefficients for a template stay as they are whatever its own texts are."""
    path, toxicity = simulated(np.random.default_rng(1))
    cell = np.zeros(path.texts, dtype=int)
    own = path.template == 3
    before = fit_control(path, toxicity, cell)
    after = fit_control(path, np.where(own, 1 - toxicity, toxicity), cell)
    fold = 3 % len(before.curve)
    np.testing.assert_array_equal(before.coefficient[fold], after.coefficient[fold])
    assert not np.allclose(before.coefficient, after.coefficient)


def test_logits_of_certain_scores_are_finite() -> None:
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
    np.testing.assert_allclose(logit(np.array([0.5, 0.9])), [0, np.log(9)])
