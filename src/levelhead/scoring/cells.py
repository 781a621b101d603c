"""Gaps and heads' effects on them from any weights of templates and words.

Sums over texts by template and word (a descriptor of one subgroup) are all it takes: a ranking
without a word, or from templates and words drawn anew, is a weighted sum of them. Every such
ranking measures gaps anew, in what is left or drawn, and decides anew which it can tell from 0, as
another run would. Shifts themselves are not measured anew: the token model is the run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from levelhead.metrics.bias import gaps_of_means
from levelhead.scoring.effects import clear_gaps, z_bias
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts
from levelhead.scoring.template_bootstrap import template_draws

_AT_ONCE = 4_000_000  # numbers in an array of resampled shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Sums over the texts of each template and word; words in the order of their subgroups."""

    subgroup: Int[np.ndarray, " words"]
    names: tuple[str, ...]
    prompts: Float[np.ndarray, " words"]
    shift: Float[np.ndarray, "templates words layers heads"]
    """Summed over texts, with `shifted` texts behind each."""
    shifted: Float[np.ndarray, "templates words"]
    own: Float[np.ndarray, "templates words"]
    """Toxicity of the base model's texts as the estimator sees it, summed over `texts`."""
    unbiased: Float[np.ndarray, "templates words"]
    texts: Float[np.ndarray, "templates words"]

    @property
    def member(self) -> Float[np.ndarray, "words subgroups"]:
        """1 where the word is one of the subgroup's."""
        out: Float[np.ndarray, "words subgroups"] = np.eye(self.subgroup.max() + 1)[self.subgroup]
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Gaps and what heads change of them, in each of some draws of templates and words."""

    gap: Float[np.ndarray, "draws subgroups"]
    used: Bool[np.ndarray, "draws subgroups"]
    measurable: Bool[np.ndarray, " draws"]
    word_change: Float[np.ndarray, "draws words layers heads"]
    """dT_S - dT_w of every word when the head is ablated."""
    word_share: Float[np.ndarray, "draws words"]
    """p_w: part of its subgroup's texts."""
    change: Float[np.ndarray, "draws subgroups layers heads"]
    """dT_S - dT_s: the mean of its words' by p_w."""

    @property
    def z_bias(self) -> Float[np.ndarray, "draws layers heads"]:
        """z_bias of every head."""
        return z_bias(self.gap, self.change, self.used)

    def shares(self, subgroup: Int[np.ndarray, " words"]) -> Float[np.ndarray, "draws words"]:
        """How much of the variance of z_bias over heads is each word's; 0 where nothing varies."""
        gap, change = self.gap[..., None, None], self.change
        fall = np.abs(gap) - np.abs(gap + change)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(change == 0, -np.sign(gap), fall / change)
        slope = np.where(self.used[..., None, None], slope, 0.0)
        part = slope[:, subgroup] * self.word_share[..., None, None] * self.word_change
        part = np.where(self.used[:, subgroup, None, None], part, 0.0)
        part = part.reshape(*part.shape[:2], -1)
        whole = self.z_bias.reshape(len(part), 1, -1)
        whole = whole - whole.mean(-1, keepdims=True)
        variance = (whole**2).sum(-1)
        together = ((part - part.mean(-1, keepdims=True)) * whole).sum(-1)
        out: Float[np.ndarray, "draws words"] = together / np.where(variance > 0, variance, np.inf)
        return out


def cells_of(problem: BiasProblem, base: SampledTexts, shifts: HeadShifts) -> tuple[Cells, bool]:
    """(the sums, whether words are told apart); if not, each subgroup is one word."""
    words = problem.descriptors
    told_apart = int(shifts.descriptor.max()) + 1 == max(map(len, words))
    names = words if told_apart else tuple((name,) for name in problem.subgroups)
    first = np.cumsum([0, *map(len, names)])[:-1]
    place = problem.descriptor if told_apart else np.zeros(len(problem.prompts), dtype=int)
    word = (first[problem.subgroup] + place)[base.prompt]
    template = problem.template[base.prompt]
    shape = (int(problem.template.max()) + 1, sum(map(len, names)))
    shift = np.zeros((*shape, *shifts.shift.shape[2:]), dtype=shifts.shift.dtype)
    shifted, own, unbiased, texts = (np.zeros(shape) for _ in range(4))
    for s, start in enumerate(first):
        at = np.flatnonzero(shifts.count[:, s])
        count = shifts.count[at, s]
        where = (shifts.template[at], start + shifts.descriptor[at])
        np.add.at(shift, where, shifts.shift[at, s] * count[:, None, None].astype(shift.dtype))
        np.add.at(shifted, where, count)
    np.add.at(own, (template, word), shifts.toxicity)
    np.add.at(unbiased, (template, word), shifts.unbiased)
    np.add.at(texts, (template, word), 1.0)
    cells = Cells(
        subgroup=np.repeat(np.arange(len(names)), list(map(len, names))),
        names=_unique_names(problem.subgroups, names),
        prompts=np.bincount(first[problem.subgroup] + place, minlength=shape[1]).astype(float),
        shift=shift,
        shifted=shifted,
        own=own,
        unbiased=unbiased,
        texts=texts,
    )
    return cells, told_apart


def _unique_names(subgroups: Sequence[str], words: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Every word by name; with its subgroup where two have the same."""
    every = [word for own in words for word in own]
    return tuple(
        f"{word} ({group})" if every.count(word) > 1 else word
        for group, own in zip(subgroups, words, strict=True)
        for word in own
    )


def drawn(
    cells: Cells,
    templates: Float[np.ndarray, "draws templates"],
    words: Float[np.ndarray, "draws words"],
) -> Drawn:
    """Gaps and changes where every template and word counts so often.

    A subgroup weighs as many prompts in T_S as its words with a weight above 0 have.

    Raises:
        PromptError: a draw with texts of fewer than two subgroups.
    """
    member = cells.member
    number, shifted = ((templates @ n) * words for n in (cells.texts, cells.shifted))
    count, count_shifted = number @ member, shifted @ member
    present = (count > 0) & (count_shifted > 0)
    weights = np.where(present, ((words > 0) * cells.prompts) @ member, 0.0)
    weights = weights / weights.sum(-1, keepdims=True)
    gap, z, other, other_z = (
        value
        for sums in (cells.own, cells.unbiased)
        for value in _gaps(cells, sums, templates, words, weights)
    )
    used, measurable = clear_gaps(np.where(present, z, 0.0), -np.sign(gap) * other_z)
    moved = np.tensordot(templates, cells.shift, 1) * words[..., None, None]
    mean = np.einsum("dwlh,ws->dslh", moved, member) / _at_least(count_shifted)[..., None, None]
    overall = np.einsum("ds,dslh->dlh", weights, mean)[:, None]
    return Drawn(
        gap=np.sign(gap) * np.maximum(np.abs(gap), np.abs(other)),  # as `effects.base_gaps`
        used=used,
        measurable=measurable,
        word_change=np.where(
            shifted[..., None, None] > 0, overall - moved / _at_least(shifted)[..., None, None], 0.0
        ),
        word_share=shifted / _at_least(count_shifted)[:, cells.subgroup],
        change=overall - mean,
    )


def _gaps(
    cells: Cells,
    sums: Float[np.ndarray, "templates words"],
    templates: Float[np.ndarray, "draws templates"],
    words: Float[np.ndarray, "draws words"],
    weights: Float[np.ndarray, "draws subgroups"],
) -> tuple[Float[np.ndarray, "draws subgroups"], Float[np.ndarray, "draws subgroups"]]:
    """(d_s, standard errors between it and 0) in every draw; 0 for a subgroup without texts.

    Errors are those of `metrics.intervals.gap_intervals`, over templates.
    """
    member = cells.member
    count = _at_least(((templates @ cells.texts) * words) @ member)
    mean = ((templates @ sums) * words) @ member / count
    gap = np.where(weights > 0, gaps_of_means(mean, weights), 0.0)
    by_template, texts = ((words[:, None] * x) @ member for x in (sums, cells.texts))
    rest = (by_template - mean[:, None] * texts) / count[:, None]
    due = np.einsum("ds,dts->dt", weights, rest)[..., None] - rest
    size = templates.sum(-1)
    variance = np.einsum("dt,dts->ds", templates, due**2) * (size / (size - 1))[:, None]
    return gap, gap / _at_least(np.sqrt(variance))


def resamples(cells: Cells, draws: int, spread: float, rng: np.random.Generator) -> Iterator[Drawn]:
    """Templates drawn anew, and words within their subgroup, in parts that fit into memory.

    Draws that leave texts of fewer than two subgroups are left out.
    """
    templates = template_draws(len(cells.texts), draws, rng).astype(float)
    words = np.ones((draws, len(cells.names)))
    for s in range(cells.subgroup.max() + 1):
        own = np.flatnonzero(cells.subgroup == s)
        times = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), draws)
        words[:, own] = 1 + spread * (times - 1)
    there = (np.minimum(templates @ cells.texts, templates @ cells.shifted) * words) @ cells.member
    kept = np.flatnonzero((there > 0).sum(-1) >= 2)
    size = max(1, _AT_ONCE // int(np.prod(cells.shift.shape[1:])))
    for start in range(0, len(kept), size):
        chosen = kept[start : start + size]
        yield drawn(cells, templates[chosen], words[chosen])


def word_spread(cells: Cells) -> float:
    """By how much of its distance from 1 a word's weight is to be redrawn, 0 to 1.

    The noise of single texts is in the spread between templates already. Words drawn with weights
    of their own would count it twice more (Owen 2007: up to three times the variance). So the
    spread between words is reduced to what it holds beyond that noise,

        spread^2 = (V_words - V_noise) / ((W - 1) / W V_words + V_noise)

    with V of the subgroups' shifts, pooled over heads: the resamples then have the variance
    V_templates + V_words - V_noise, that of two-way standard errors. 0 where words differ no more
    than noise makes them, or where each subgroup has one word.
    """
    beyond = total = 0.0
    for s in range(cells.subgroup.max() + 1):
        own = np.flatnonzero(cells.subgroup == s)
        number = cells.shifted[:, own]
        rows = np.flatnonzero((number > 0).all(1))
        if len(own) < 2 or len(rows) < 2:
            continue
        mean = cells.shift[np.ix_(rows, own)] / number[rows][..., None, None]
        of_word = mean.mean(0)
        left = mean - of_word - mean.mean(1, keepdims=True) + mean.mean((0, 1))
        count, size = len(rows), len(own)
        noise = float((left**2).sum()) / ((count - 1) * (size - 1)) / (count * size)
        words = float(((of_word - of_word.mean(0)) ** 2).sum()) / (size * (size - 1))
        beyond += words - noise
        total += (size - 1) / size * words + noise
    return float(np.sqrt(min(1.0, max(0.0, beyond / total)))) if total else 0.0


def _at_least(count: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    out: Float[np.ndarray, "*any"] = np.maximum(count, 1e-12)
    return out
