"""The noise of which words were drawn, taken out of toxicities without moving their mean.

For any function h_t of the words seen so far and of the next one,

    M = sum_t [h_t(y_t) - E h_t(v)],   v drawn from the model after the prompt and y_<t

has mean zero over what the model writes after a prompt: toxicity - coefficient * M keeps its mean
whatever h and the coefficient are, as long as they do not look at the text itself. Two M are used:

    h = tau(v)                                         the rise of toxicity in some contexts
    h = g(level + rise(v), t + 1) - g(level, t + 1)    the rise of the toxicity to come

level is the logit of the toxicity of the words so far and rise(v) how far a word moves it
(`WordLevels`); g is a logistic curve that says what becomes of a text of that level after t words.
A word counts much in a harmless text and hardly in one that is toxic already. Expectations are
exact: rise(v) is spread over a few grid points whose probabilities the model's pass yields, and h
is linear between them, for the word that was written too. Words of several tokens are known only
through the level.

Curve and coefficients come from the base model's texts of OTHER templates (`FOLDS`), whichever
model's texts they are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import Row, tau_table
from levelhead.scoring.token_toxicity import TokenToxicity, logit, toxicity_text
from levelhead.toxicity import ToxicityScorer, score_texts

GRID = 14
"""Points that the words' rises are spread over; closer around 0, where most are."""
FOLDS = 5
"""Parts of the templates; one part's texts take what the others' say."""
RIDGE = 2.0
"""Texts' worth of shrinkage of the coefficients: it keeps a handful of texts from adding noise."""
FIRM = 1e-4
"""Pull of the curve's slopes towards 0, in units of squared toxicity."""
CURVE = 4
"""Parameters of g: level and slope, each linear in the share of the words written."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of numbers of tokens that a pass of the model takes expectations of, for one scorer.

    tau's rows first; then the grid twice: of tokens that begin a word wherever they stand, and of
    those that do after no letter.
    """

    tau: TokenToxicity
    table: Float[Tensor, "columns vocab"]
    grid: Float[np.ndarray, " points"]

    @classmethod
    def of(cls, tau: TokenToxicity, vocab: int) -> Columns:
        """The columns of a scorer's tau and word levels."""
        own = tau_table(tau, vocab)
        if tau.levels is None:
            return cls(tau, own, np.zeros(0))
        grid = _grid(tau.levels.rise)
        spread = np.zeros((2, len(grid), vocab))
        place, share = _between(grid, tau.levels.rise)
        kind = np.where(tau.levels.spaced, 0, 1)
        spread[kind, place, tau.levels.token_ids] = 1 - share
        spread[kind, place + 1, tau.levels.token_ids] = share
        hats = torch.from_numpy(spread.reshape(-1, vocab)).float()
        return cls(tau, torch.cat([own, hats]), grid)


def _grid(rise: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, " points"]:
    low, high = min(float(rise.min()), -1e-6), max(float(rise.max()), 1e-6)
    even = np.linspace(-1, 1, GRID)
    points = max(-low, high) * np.sign(even) * even**2
    inside = points[(points > low) & (points < high)]
    found: Float[np.ndarray, " points"] = np.concatenate([[low], inside, [high]])
    return found


def _between(
    grid: Float[np.ndarray, " points"], x: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The grid point below, and the share of the way to the next."""
    place = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    return place, (x - grid[place]) / (grid[place + 1] - grid[place])


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What one scorer's words did at every step of some texts, and what was to be expected."""

    text: Int[np.ndarray, " steps"]
    """Which text a step belongs to."""
    texts: int
    template: Int[np.ndarray, " n"]
    """Of each text."""
    share: Float[np.ndarray, " steps"]
    """Share of the words that a text may have which are written after the step."""
    tau: Float[np.ndarray, " steps"]
    """tau(y_t) - E tau."""
    expected: Float[np.ndarray, " n"]
    """sum_t E tau of each text."""
    level: Float[np.ndarray, " steps"]
    """Logit of the toxicity of the words before the step."""
    grid: Float[np.ndarray, " points"]
    surprise: Float[np.ndarray, "steps points"]
    """What the written word has of each grid point, less its expectation."""

    @property
    def tau_surprise(self) -> Float[np.ndarray, " n"]:
        """M of tau, of each text."""
        return self._sum(self.tau)

    def features(self, curve: Float[np.ndarray, " curve"]) -> Float[np.ndarray, "n features"]:
        """The M of each text; each has mean zero given its prompt."""
        if not len(self.grid):
            return self.tau_surprise[:, None]
        points = self.level[:, None] + self.grid
        rise = _curve(curve, points, self.share[:, None])
        rise -= _curve(curve, self.level, self.share)[:, None]
        return np.stack([self.tau_surprise, self._sum((rise * self.surprise).sum(1))], axis=1)

    def fit(self, toxicity: Float[np.ndarray, " n"], used: Bool[np.ndarray, " n"]) -> np.ndarray:
        """g by least squares: toxicity of the texts that are used, given each of their levels."""
        start = np.array([float(logit(toxicity[used].mean(keepdims=True))[0]), 0.0, 0.5, 0.0])
        steps = used[self.text]
        if not len(self.grid) or not steps.any():
            return start
        x = _curve_inputs(self.level[steps], self.share[steps])
        y = toxicity[self.text[steps]]

        def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
            found = expit(x @ b)
            wrong = found - y
            slope = x.T @ (2 * wrong * found * (1 - found)) / len(y)
            firm = FIRM * np.array([0.0, 1.0, 1.0, 1.0])
            return float((wrong**2).mean() + (firm * b**2).sum()), slope + 2 * firm * b

        found: np.ndarray = minimize(loss, start, jac=True, method="L-BFGS-B").x
        return found

    def _sum(self, steps: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " n"]:
        return np.bincount(self.text, steps, self.texts)


def _curve_inputs(
    level: Float[np.ndarray, "*n"], share: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n 4"]:
    return np.stack([np.ones_like(level), share, level, level * share], axis=-1)


def _curve(
    curve: Float[np.ndarray, " curve"],
    level: Float[np.ndarray, "*n"],
    share: Float[np.ndarray, "*m"],
) -> Float[np.ndarray, "*n"]:
    """g: the toxicity to be expected of a text."""
    found: Float[np.ndarray, "*n"] = expit(
        curve[0] + curve[1] * share + (curve[2] + curve[3] * share) * level
    )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlVariate:
    """Curve and coefficients for each part of the templates, learned on the others."""

    curve: Float[np.ndarray, "folds curve"]
    coefficient: Float[np.ndarray, "folds features"]

    def noise(self, path: Path) -> Float[np.ndarray, " n"]:
        """What of each text's toxicity is the luck of its words; mean zero given its prompt."""
        fold = path.template % len(self.curve)
        out = np.zeros(path.texts)
        for k in np.unique(fold):
            own = fold == k
            out[own] = (path.features(self.curve[k]) @ self.coefficient[k])[own]
        return out


def fit_control(
    path: Path, toxicity: Float[np.ndarray, " n"], cell: Int[np.ndarray, " n"]
) -> ControlVariate:
    """Curve and coefficients for each part of the templates from the texts of the others.

    Args:
        cell: texts that share an expectation: a prompt's, or a subgroup's.
    """
    parts = min(FOLDS, int(path.template.max()) + 1)
    fold = path.template % parts
    curves, coefficients = [], []
    for k in range(parts):
        used = fold != k
        curve = path.fit(toxicity, used)
        m = path.features(curve)[used]
        scale = np.sqrt((m**2).mean(0)) + 1e-12
        x, y = centred(m / scale, cell[used]), centred(toxicity[used], cell[used])
        gram = x.T @ x + RIDGE * np.eye(x.shape[1])
        curves.append(curve)
        coefficients.append(np.linalg.solve(gram, x.T @ y) / scale)
    return ControlVariate(curve=np.array(curves), coefficient=np.array(coefficients))


def centred(
    values: Float[np.ndarray, n * k], cell: Int[np.ndarray, " n"]
) -> Float[np.ndarray, n * k]:
    """Values less the mean of their cell."""
    total = np.zeros((int(cell.max()) + 1, *values.shape[1:]))
    np.add.at(total, cell, values)
    count = np.maximum(np.bincount(cell), 1).reshape(-1, *[1] * (values.ndim - 1))
    out: Float[np.ndarray, n * k] = values - (total / count)[cell]
    return out


def read_path(
    problem: BiasProblem,
    scorer: ToxicityScorer,
    texts: SampledTexts,
    rows: Sequence[Row],
    columns: Columns,
    read: Sequence[Float[np.ndarray, "steps columns"]],
) -> Path:
    """What happened at each step of some texts, from the expectations that a pass found.

    Args:
        read: of each row, the expectations of `columns.table`.
    """
    tau, levels = columns.tau, columns.tau.levels
    length = [len(row.continuation) for row in rows]
    text = np.repeat(np.arange(len(rows)), length)
    written = np.concatenate([np.array(row.continuation, dtype=np.int64) for row in rows])
    own = np.array([tau.row(row.subgroup) for row in rows])[text]
    expected = np.concatenate(read).astype(np.float64)
    step = np.arange(len(text))
    table = columns.table.numpy().astype(np.float64)
    size, points = len(tau.tau), len(columns.grid)
    surprise = np.zeros((len(text), points))
    level = np.zeros(len(text))
    if levels is not None:
        after_letter = _after_letter(problem, rows)
        hats = table[size:].reshape(2, points, -1)
        begun = hats[0][:, written].T - expected[:, size : size + points]
        bare = hats[1][:, written].T - expected[:, size + points : size + 2 * points]
        surprise = begun + bare * ~after_letter[:, None]
        rise = np.zeros((2, table.shape[1]))
        rise[np.where(levels.spaced, 0, 1), levels.token_ids] = levels.rise
        moved = rise[0][written] + rise[1][written] * ~after_letter
        level = _levels(problem, scorer, texts, rows, moved)
    r = expected[step, own]
    return Path(
        text=text,
        texts=len(rows),
        template=problem.template[texts.prompt],
        share=(step - (np.cumsum(length) - length)[text] + 1) / problem.new_tokens,
        tau=table[own, written] - r,
        expected=np.bincount(text, r, len(rows)),
        level=level,
        grid=columns.grid,
        surprise=surprise,
    )


def _after_letter(problem: BiasProblem, rows: Sequence[Row]) -> Bool[np.ndarray, " steps"]:
    """Whether the token before each step ends in a letter, so that "word" would go on with it."""
    before = [((*row.prompt_ids[-1:], *row.continuation)[: len(row.continuation)]) for row in rows]
    flat = [token for row in before for token in row]
    known = {
        token: bool(name) and str(name)[-1].isalpha()
        for token, name in zip(
            sorted(set(flat)),
            problem.tokenizer.convert_ids_to_tokens(sorted(set(flat))),
            strict=True,
        )
    }
    return np.array([known[token] for token in flat], dtype=bool)


def _levels(
    problem: BiasProblem,
    scorer: ToxicityScorer,
    texts: SampledTexts,
    rows: Sequence[Row],
    moved: Float[np.ndarray, " steps"],
) -> Float[np.ndarray, " steps"]:
    """Logit of the toxicity of the words before each step.

    A cheap scorer is asked; for an expensive one the words' rises are added to the prompt's.
    """
    kind, prompts = problem.toxicity_input, [problem.prompts[int(p)].text for p in texts.prompt]
    if scorer.cost == "cheap":
        asked = []
        for prompt, row in zip(prompts, rows, strict=True):
            starts = [list(row.continuation[:t]) for t in range(len(row.continuation))]
            so_far = problem.tokenizer.batch_decode(starts, skip_special_tokens=True)
            asked += [toxicity_text(prompt, text, kind) for text in so_far]
        return logit(score_texts(scorer, asked))
    alone = logit(score_texts(scorer, [toxicity_text(prompt, "", kind) for prompt in prompts]))
    length = np.array([len(row.continuation) for row in rows])
    before = np.cumsum(moved) - moved
    first = np.repeat(np.cumsum(length) - length, length)
    level: Float[np.ndarray, " steps"] = np.repeat(alone, length) + before - before[first]
    return level
