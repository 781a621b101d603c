"""Methods at several shares of heads (compare.json): curves, the front, the search for gamma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from levelhead.reporting import numbers
from levelhead.reporting.content import Column, Plot, Section, Table, Value, numeric
from levelhead.reporting.estimates import Estimate, cell, estimate, percent_cell, said, said_percent
from levelhead.reporting.figures import curves
from levelhead.reporting.figures.curves import Mark, Series
from levelhead.reporting.figures.matrices import marked, matrix
from levelhead.reporting.summary import mapping, records, word


@dataclass(frozen=True, slots=True)
class Point:
    """One pruned model."""

    method: str
    alpha: float
    gamma: float | None
    data: Mapping[str, Any]

    @property
    def draw(self) -> float | None:
        """Which of a random method's draws."""
        return numbers.finite(self.data.get("draw"))

    def change(self, axis: str) -> Estimate | None:
        """Of the expected bias on an axis."""
        return estimate(mapping(self.data, "axes", axis).get("expected_difference"))

    @property
    def perplexity(self) -> Estimate | None:
        """Its relative change."""
        return estimate(self.data.get("perplexity_increase"))


def compare(data: Mapping[str, Any] | None) -> Section | None:
    """Curves per method and the numbers behind them, for the first axis and for the others."""
    if data is None:
        return None
    results = [data, *records(data, "more")]
    found = [(one, _points(one)) for one in results]
    found = [(one, points) for one, points in found if points]
    if not found:
        return None
    plots: list[Plot] = []
    more: list[Plot] = []
    tables: list[Table] = []
    for place, (one, points) in enumerate(found):
        axis = _axis(one, points)
        own = [*_curves(points, axis, place), *_front(points, axis, place)]
        own += _search(one, axis, place)
        if place == 0:
            plots = [own[0], *_perplexity(points), *own[1:]]
        else:
            more += own
        tables += _tables({**data, **one}, points, axis)
    return Section(
        key="compare",
        title="Methods compared",
        intro=_intro(data, _axis(*found[0])),
        plots=tuple(plots),
        more_plots=tuple(more),
        more_title="The same for the other axes",
        tables=tuple(tables),
    )


def _points(data: Mapping[str, Any] | None) -> list[Point]:
    found = []
    for one in records(data, "points"):
        alpha = numbers.finite(one.get("alpha"))
        if alpha is not None and one.get("method"):
            gamma = numbers.finite(one.get("gamma"))
            found.append(Point(str(one["method"]), alpha, gamma, one))
    return found


def _axis(data: Mapping[str, Any], points: Sequence[Point]) -> str:
    """The axis heads were selected for."""
    seen = (str(axis) for point in points for axis in mapping(point.data, "axes"))
    return str(data["axis"]) if data.get("axis") else next(seen, "")


def _intro(data: Mapping[str, Any], axis: str) -> tuple[str, ...]:
    prompts, seeds = (numbers.finite(data.get(name)) for name in ("prompts", "seeds"))
    budget = numbers.finite(data.get("max_ppl_increase"))
    said_of = ", ".join(
        f"{numbers.count(number)} {name}{'s' * (number != 1)}"
        for number, name in ((prompts, "test prompt"), (seeds, "seed"))
        if number is not None
    )
    first = (
        "Each method prunes the same number of heads"
        + (f", chosen for {axis}" if axis else "")
        + (f" ({said_of})" if said_of else "")
        + ". Changes are paired with the unpruned model: same prompts, same continuations, "
        "95% intervals. Below 0, the measured bias is lower."
    )
    second = (
        f"Within budget: perplexity rises by at most {numbers.percent(budget, 0)}."
        if budget is not None
        else ""
    )
    return (first, second) if second else (first,)


def _series(points: Sequence[Point], axis: str, *, perplexity: bool = False) -> list[Series]:
    """A line per method and draw; per gamma too where a method has several at one share."""
    methods = list(dict.fromkeys(point.method for point in points))
    found = []
    for place, method in enumerate(methods):
        mine = [point for point in points if point.method == method]
        for draw in dict.fromkeys(point.draw for point in mine):
            line = [point for point in mine if point.draw == draw]
            split = len({point.alpha for point in line}) < len(line)
            for gamma in dict.fromkeys(point.gamma if split else None for point in line):
                chosen = [p for p in line if not split or p.gamma == gamma]
                marks = [
                    Mark(point.alpha, y, _hover(point), point.perplexity)
                    for point in sorted(chosen, key=lambda p: p.alpha)
                    if (y := point.perplexity if perplexity else point.change(axis)) is not None
                ]
                label = method if gamma is None else f"{method}, gamma {gamma:g}"
                if marks:
                    found.append(Series(label, place, tuple(marks)))
    return found


def _hover(point: Point) -> str:
    heads = numbers.finite(point.data.get("num_heads"))
    said_of = [] if heads is None else [f"{heads:g} heads"]
    said_of += [] if point.gamma is None else [f"gamma {point.gamma:g}"]
    said_of += ["over the perplexity budget"] * (point.data.get("within_budget") is False)
    return ", ".join(said_of)


def _curves(points: Sequence[Point], axis: str, place: int) -> list[Plot]:
    series = _series(points, axis)
    if not series:
        return []
    return [
        Plot(
            key=f"compare-bias-{place}",
            title=f"Change of bias against the share of heads pruned, {axis}",
            caption="Expected bias, pruned minus base, on the same continuations. Lower is better.",
            figure=curves.over_share(series, "alpha", curves.BIAS_TITLE),
        )
    ]


def _perplexity(points: Sequence[Point]) -> list[Plot]:
    series = _series(points, "", perplexity=True)
    if not series:
        return []
    return [
        Plot(
            key="compare-ppl",
            title="Change of perplexity against the share of heads pruned",
            caption="Relative to the unpruned model, on held-out text. Lower is better.",
            figure=curves.over_share(series, "alpha", curves.PPL_TITLE, percent=True),
        )
    ]


def _front(points: Sequence[Point], axis: str, place: int) -> list[Plot]:
    series = [s for s in _series(points, axis) if any(mark.x for mark in s.marks)]
    if not series:
        return []
    return [
        Plot(
            key=f"compare-front-{place}",
            title=f"Bias against perplexity, a mark per pruned model, {axis}",
            caption="Left and down is better. Grey line: the front, models that no other one beats "
            "on both; which of them stand on it is itself uncertain, see the intervals.",
            figure=curves.against(series),
            wide=True,
        )
    ]


def _search(data: Mapping[str, Any], axis: str, place: int) -> list[Plot]:
    entries: dict[tuple[float, float], Mapping[str, Any]] = {}
    for one in records(data, "search"):
        gamma, alpha = (numbers.finite(one.get(name)) for name in ("gamma", "alpha"))
        if gamma is not None and alpha is not None:
            entries[gamma, alpha] = one
    gammas, alphas = (sorted({pair[i] for pair in entries}) for i in (0, 1))
    found = {k: estimate(v.get("expected_difference")) for k, v in entries.items()}
    sizes = [abs(one.value) for one in found.values() if one]
    if not sizes or len(gammas) * len(alphas) < 2:
        return []
    grid = [[found.get((gamma, alpha)) for alpha in alphas] for gamma in gammas]
    figure = matrix(
        [f"{gamma:g}" for gamma in gammas],
        [f"{alpha:g}" for alpha in alphas],
        [[one.value if one else None for one in line] for line in grid],
        # A number in every cell would not fit beside a dozen others.
        [[numbers.decimal(o.value, 3) if o and len(alphas) <= 6 else "" for o in r] for r in grid],
        [[_entry(entries.get((gamma, alpha))) for alpha in alphas] for gamma in gammas],
        limit=max(sizes) or 1.0,
        across="alpha (share of heads pruned)",
        down="gamma (share protected)",
    )
    cells = {
        (i, j): entries.get((gamma, alpha), {})
        for i, gamma in enumerate(gammas)
        for j, alpha in enumerate(alphas)
    }
    over = [place for place, one in cells.items() if one.get("within_budget") is False]
    chosen = [place for place, one in cells.items() if one.get("chosen")]
    figure = marked(marked(figure, over, "x", "over budget"), chosen, "star", "chosen")
    return [
        Plot(
            key=f"compare-search-{place}",
            title=f"The search for gamma and alpha on validation prompts, {axis}",
            caption="Change of expected bias; violet: lower. Test prompts judge what was chosen.",
            legend=(("on-map pruned", "over the perplexity budget"), ("on-map chosen", "chosen")),
            figure=figure,
            wide=True,
        )
    ]


def _entry(one: Mapping[str, Any] | None) -> str:
    data = mapping(one)
    bias = said(estimate(data.get("expected_difference")))
    return f"bias {bias}, perplexity {said_percent(estimate(data.get('perplexity_increase')))}"


def _tables(data: Mapping[str, Any], points: Sequence[Point], axis: str) -> list[Table]:
    """The methods at the alphas that were sampled, then every point."""
    rows = [row for row in records(data, "table") if row.get("method")]
    changes = records(data, "changes")
    tables = []
    if rows:
        columns = (
            Column("Method"),
            *numeric("gamma", "alpha", "Heads"),
            *numeric("Noise-adjusted difference"),
            Column("Verdict"),
            *numeric("Expected difference", "Mean toxicity", "Perplexity"),
            Column("Within budget"),
        )
        cells: list[tuple[Value, ...]] = [
            (
                *_first_cells(_method(row), row),
                cell(row.get("adjusted_difference") or row.get("difference")),
                _verdict(row, points, changes, axis),
                cell(row.get("expected_difference")),
                cell(row.get("toxicity_difference")),
                percent_cell(row.get("perplexity_increase")),
                _within(row),
            )
            for row in rows
        ]
        at = (_first_cells("", row)[2] for row in rows if row.get("method") != "average")
        said_at = " and ".join(dict.fromkeys(at))
        title = f"All methods at alpha {said_at}, {axis}"
        tables.append(Table.of(columns, cells, title=title, note=_NOTE))
    columns = (
        Column("Method"),
        *numeric("gamma", "alpha", "Heads", "Expected bias", "Perplexity"),
        Column("Within budget"),
    )
    points_cells: list[tuple[Value, ...]] = [
        (
            *_first_cells(point.method, point.data),
            cell(mapping(point.data, "axes", axis).get("expected_difference")),
            percent_cell(point.data.get("perplexity_increase")),
            _within(point.data),
        )
        for point in points
    ]
    title = f"All {len(points)} pruned models, {axis}"
    return [*tables, Table.of(columns, points_cells, title=title, fold="closed" if rows else "")]


def _first_cells(method: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (numbers.finite(data.get(name)) for name in ("gamma", "alpha"))
    said_of = (numbers.MISSING if share is None else f"{share:g}" for share in shares)
    return (method, *said_of, numbers.count(data.get("num_heads")))


def _method(row: Mapping[str, Any]) -> str:
    draws = numbers.finite(row.get("draws")) or 1
    return str(row["method"]) + (f" ({draws:g} draws)" if draws > 1 else "")


def _verdict(
    row: Mapping[str, Any],
    points: Sequence[Point],
    changes: Sequence[Mapping[str, Any]],
    axis: str,
) -> str:
    """What the sampled texts of a method show; of several draws, each word that one of them has."""
    own = [one for one in changes if one.get("attempt") == row.get("attempt")]
    words = [word(mapping(one, "axes", axis, "sampled").get("verdict")) for one in own]
    words += [
        word(mapping(point.data, "axes", axis, "sampled").get("verdict"))
        for point in points
        if (point.method, point.alpha) == (row["method"], row.get("alpha"))
        and point.data.get("run") == row.get("run")
    ]
    return ", ".join(dict.fromkeys(one for one in words if one))


def _within(data: Mapping[str, Any]) -> str:
    within = data.get("within_budget")
    return ("yes" if within else "no") if isinstance(within, bool) else numbers.MISSING


_NOTE = (
    "Changes against the unpruned model. The verdict rests on the noise-adjusted difference, of "
    "fresh continuations of both models. Expected: a prediction, on the same continuations. "
    "Several draws: their mean, and an interval that spans all of theirs."
)
