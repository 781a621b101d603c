"""Which sets of heads a comparison judges: methods x alpha x gamma, each set once.

Pure: it knows a score table and the rules of selection, nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from levelhead.errors import SelectionError
from levelhead.records import Head, HeadSelection, Unit
from levelhead.scores import ScoreTable, head_count
from levelhead.selection import select_heads
from levelhead.selection.rules import PROTECTING
from levelhead.selection.units import in_units


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One method at one alpha: the heads it prunes. alpha 0, or too small for a head: none."""

    method: str
    alpha: float
    gamma: float | None
    """None for methods that protect nothing."""
    draw: int | None
    """Of method random: which draw."""
    heads: tuple[Head, ...]
    run: str | None = None
    """Whose head scores ranked them, where several runs are compared."""
    unit: Unit = "head"
    """What `heads` are, by the run's scores: heads, all heads of layers, or (layer, neuron)."""

    @property
    def chosen(self) -> Sequence[Head] | HeadSelection:
        """The heads; of neurons a selection that says so."""
        return (
            HeadSelection(heads=self.heads, unit="neuron") if self.unit == "neuron" else self.heads
        )

    def to_json(self) -> dict[str, Any]:
        """The form of compare.json."""
        return {
            "run": self.run,
            "method": self.method,
            "alpha": self.alpha,
            "gamma": self.gamma,
            "draw": self.draw,
            "num_heads": len(self.heads),
            **({} if self.unit == "head" else {"unit": self.unit}),
            **HeadSelection(heads=self.heads, unit=self.unit).chosen_json(),
        }


def points_of(
    table: ScoreTable,
    axis: str,
    method: str,
    alphas: Sequence[float],
    gammas: Sequence[float],
    draws: int,
) -> list[Point]:
    """Every point of a method, by alpha, then gamma or draw. Points of alpha 0 are the base.

    A gamma that leaves too few heads for an alpha gives no point there.
    """
    found = []
    for alpha in alphas:
        for gamma in gammas if method in PROTECTING else [None]:
            for draw in range(draws) if method == "random" else [None]:
                heads = _heads(table, axis, method, alpha, gamma, draw)
                if heads is not None:
                    found.append(
                        Point(
                            method=method, alpha=alpha, gamma=gamma, draw=draw, heads=heads,
                            unit=cast(Unit, table.unit),
                        )
                    )  # fmt: skip
    return found


def _heads(
    table: ScoreTable, axis: str, method: str, alpha: float, gamma: float | None, draw: int | None
) -> tuple[Head, ...] | None:
    total = table.num_layers * table.num_heads
    count = head_count(alpha, total)
    if count == 0:
        return ()
    if gamma is not None and count > total - head_count(gamma, total):
        return None
    chosen = select_heads(
        table, axis=axis, method=method, gamma=gamma or 0.0, alpha=alpha, seed=draw or 0
    )
    return in_units(chosen, table).heads


def check_grid(
    table: ScoreTable, axis: str, methods: Sequence[str], alphas: Sequence[float],
    gammas: Sequence[float],
) -> None:  # fmt: skip
    """Raise for a method, share or axis that no point could be made of.

    Raises:
        SelectionError: an unknown or repeated method, a share out of range, no point at all.
        ScoreTableError: the table lacks the axis, or a method's scores.
    """
    if len(set(methods)) != len(methods):
        raise SelectionError(f"a method is named twice: {', '.join(methods)}")
    for name, shares in (("alpha", alphas), ("gamma", gammas)):
        if wrong := [share for share in shares if not 0 <= share <= 1]:
            raise SelectionError(f"{name}={wrong[0]} is not a share of heads between 0 and 1")
    for method in methods:
        # One head, protecting none: fails only where the table or the method is at fault.
        least = 1 / (table.num_layers * table.num_heads) * 1.001
        select_heads(table, axis=axis, method=method, gamma=0.0, alpha=least)
        if not any(p.heads for p in points_of(table, axis, method, alphas, gammas, 1)):
            raise SelectionError(
                f"method {method!r} has no point that prunes a head: use a larger --alpha"
                + (" or a smaller --gamma" if method in PROTECTING else "")
            )


def within_budget(judged: Mapping[str, Any], max_ppl_increase: float) -> bool:
    """Whether a set's perplexity rises by no more than the allowed share."""
    return bool(judged["perplexity_increase"]["value"] <= max_ppl_increase)


def best(judged: Sequence[Mapping[str, Any]], max_ppl_increase: float) -> Mapping[str, Any]:
    """Of sets judged on validation prompts: the largest expected fall of bias within the budget.

    Where none keeps the budget, the one that exceeds it least.
    """
    fits = [one for one in judged if within_budget(one, max_ppl_increase)]
    if fits:
        return min(fits, key=lambda one: one["expected_difference"]["value"])
    return min(judged, key=lambda one: one["perplexity_increase"]["value"])
