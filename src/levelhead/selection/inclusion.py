"""How often each head is selected when templates, words and text are drawn anew.

The inclusion frequency of a head is the share of resamples of the run in which a rule, at its
gamma and alpha, selects it. It says how far a selection hangs on what happened to be drawn. It is
not how often another run would select the head: resamples scatter around what this run measured,
noise included. `expected_overlap` takes that out: how much of the set another run would share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import ScoreTableError, SelectionError
from levelhead.records import Head, HeadSelection
from levelhead.scores import ScoreTable
from levelhead.selection.rules import RANKINGS, Grid, ranked_by, ranked_heads

Resampled = Mapping[str, Float[np.ndarray, "draws layers heads"]]
"""Effects z from resamples of a run, by metric ("ppl", "bias:AXIS")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How heads are selected, of a method that ranks them."""

    axis: str
    method: str
    gamma: float
    alpha: float
    groups: int | None = None
    """As many heads of each of so many groups of every layer; None: over the whole model."""

    def heads(self, effects: Mapping[str, Grid]) -> list[Head]:
        """The heads that it selects by these effects.

        Raises:
            SelectionError: it leaves too few heads in some layer.
        """
        shares = (self.axis, self.method, self.gamma, self.alpha)
        return ranked_heads(_Effects(z=effects), *shares, seed=0, groups=self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """How often a rule selects each head."""

    share: Grid
    """In resamples of the run, 0 to 1."""
    expected: Grid
    """In other runs of the same size, as far as effects are normal: `expected_overlap`."""
    resamples: int

    def expected_overlap(self, heads: Sequence[Head]) -> float:
        """Share of these heads that another run of the same size would select too."""
        return float(np.mean([self.expected[head] for head in heads]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effects:
    """Effects as a table that rankings can read; building a real one takes 30 times as long."""

    z: Mapping[str, Grid]

    @property
    def num_layers(self) -> int:
        return self._shape[0]

    @property
    def num_heads(self) -> int:
        return self._shape[1]

    @property
    def _shape(self) -> tuple[int, ...]:
        return next(iter(self.z.values())).shape

    def ranking(self, metric: str) -> Grid:
        return self.z[metric]

    def grid(self, name: str) -> Grid:
        raise ScoreTableError(f"resamples have effects alone, no column {name!r}")


def inclusion(table: ScoreTable, resampled: Resampled, rule: Rule) -> Inclusion | None:
    """How often each head is selected; None: the method ranks by nothing that was resampled.

    Args:
        table: of the run, with the base values of the metrics that the rule ranks by.
        resampled: of its effects.
        rule: that selects.
    """
    metrics = ranked_by(rule.method, rule.axis)
    if rule.method not in RANKINGS or not metrics or not set(metrics) <= set(resampled):
        return None
    z = {metric: resampled[metric].astype(float) for metric in metrics}
    others = {metric: _other_runs(table.effect(metric), drawn) for metric, drawn in z.items()}
    found, expected = _frequency(z, rule), _frequency(others, rule)
    if found is None or expected is None:
        return None
    return Inclusion(share=found[0], expected=expected[0], resamples=found[1])


def _frequency(z: Resampled, rule: Rule) -> tuple[Grid, int] | None:
    """(share of draws that select each head, draws); draws that the rule cannot do are left out."""
    total, done = np.zeros(next(iter(z.values())).shape[1:]), 0
    for effects in _by_draw(z):
        try:
            heads = rule.heads(effects)
        except SelectionError:  # a draw protects nearly all of some layer, the run does not
            continue
        total[tuple(np.array(heads).T)] += 1
        done += 1
    return (total / done, done) if done else None


def _by_draw(z: Resampled) -> Iterator[dict[str, Grid]]:
    for grids in zip(*z.values(), strict=True):
        yield dict(zip(z, grids, strict=True))


def _other_runs(
    measured: Grid, drawn: Float[np.ndarray, "draws layers heads"]
) -> Float[np.ndarray, "draws layers heads"]:
    """Effects as other runs would measure them, given what this one did.

    The true effects of heads are taken as normal around one mean, with the variance that measured
    ones have beyond their noise. A head's true effect then lies, as far as this run can say, at
    mean + r (measured - mean) with variance r V, where V is its noise and r the share of signal;
    another run adds noise V of its own.
    """
    noise = drawn.var(0, ddof=1)
    signal = max(0.0, float(measured.var() - noise.mean()))
    share = np.divide(signal, signal + noise, out=np.ones_like(noise), where=signal + noise > 0)
    mean = float(measured.mean())
    out: Float[np.ndarray, "draws layers heads"] = (
        mean + share * (measured - mean) + np.sqrt(1 + share) * (drawn - measured)
    )
    return out


def overlap(rule: Rule, effects: Mapping[str, Grid], other: Mapping[str, Grid]) -> float:
    """Share of the heads that a rule selects by some effects that it selects by others, too."""
    heads = set(rule.heads(effects))
    return len(heads & set(rule.heads(other))) / max(1, len(heads))


def core_of(selection: HeadSelection, found: Inclusion | None, core: float) -> HeadSelection:
    """Of the heads that a rule selected, those of at least this inclusion frequency.

    Args:
        selection: by rows of a score table.
        found: None: nothing was resampled for its method.
        core: 0 to 1.

    Raises:
        SelectionError: no inclusion frequencies, or none of the heads is selected that often.
    """
    check_core(core)
    if found is None:
        raise SelectionError(
            f"--core takes heads by how often resamples of a run select them, and of method "
            f"{selection.method} with these scores there are none: use --method fasp, bias_only or "
            "ppl_only on a run folder of attention heads or layers (scored by an older levelhead: "
            "score it again into a new folder), or leave --core out"
        )
    shares = {head: float(found.share[head]) for head in selection.heads}
    kept = [head for head, share in shares.items() if share >= core]
    if not kept:
        most = max(shares.values())
        raise SelectionError(
            f"--core {core:g}: none of the {len(shares)} heads is selected in so many of the "
            f"{found.resamples} resamples; the largest inclusion frequency is {most:.3f}: lower "
            f"--core to {np.floor(most * 1000) / 1000:g} or less, or score with more prompts or "
            "samples (--max-prompts, --samples)"
        )
    return replace(selection, heads=tuple(sorted(kept)))


def check_core(core: float) -> None:
    """Raise SelectionError for a share outside 0 to 1."""
    if not 0 <= core <= 1:  # also false for NaN
        raise SelectionError(f"core={core} is not a share of resamples between 0 and 1")


def inclusion_details(
    selection: HeadSelection, found: Inclusion | None, core: float | None, selected: int
) -> dict[str, Any]:
    """As selection.json holds it: of rows of the table, in the order they are listed there.

    Args:
        selection: what is pruned, by rows of the table.
        core: the least inclusion frequency, where one was asked for.
        selected: how many heads the rule had selected.
    """
    if found is None:
        return {}
    shares = [round(float(found.share[head]), 4) for head in selection.heads]
    said: dict[str, Any] = {
        "inclusion": shares,
        "resamples": found.resamples,
        "expected_overlap": found.expected_overlap(selection.heads),
    }
    return said if core is None else {"core": core, "selected": selected, **said}
