"""What a comparison is made of: runs that may be compared, the points, and how much work it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.attempts import attempts
from levelhead.errors import ConfigError
from levelhead.experiments.grid import Point, points_of
from levelhead.experiments.scored import differing, read_scored
from levelhead.records import HeadSelection
from levelhead.scores import ScoreTable
from levelhead.selection.rules import PROTECTING, ranked_by
from levelhead.session import Session
from levelhead.stages.selecting import read_selection

SAME = (
    "prompts", "prompt_seed", "prompt_tokens", "toxicity_input", "text", "text_windows",
    "new_tokens", "chat_template",
)  # fmt: skip
"""Options that runs must share to be compared."""
Grid = Mapping[str, Sequence[Point]]
"""The points of every method, by method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """The work a comparison is, at most: what an earlier one has left is not done again."""

    axes: tuple[str, ...]
    searched: int
    """Sets of heads read on validation prompts, to choose gamma."""
    judged: int
    """Sets of heads read on test prompts."""
    sampled: int
    """Models that continue the test prompts afresh, the base model among them."""
    sampled_tokens: int


def changes_of(run: Path) -> dict[int, HeadSelection]:
    """What a run and its attempts change by method average, by the number of the attempt.

    Changes whose file is gone are left out.
    """
    found = {}
    for number, path in attempts(run):
        if (path / runs.SELECTION).exists():
            selection = read_selection(path / runs.SELECTION)
            if selection.change is not None and selection.change.exists():
                found[number] = selection
    return found


def comparable_tables(paths: Sequence[str | Path]) -> dict[str | None, ScoreTable]:
    """The score tables by run; a single run has no name.

    Raises:
        ConfigError: a run that measures something else than the first, or is named twice.
    """
    read = [read_scored(path) for path in paths]
    names = [scored.name for scored in read]
    if len(set(names)) != len(names):
        raise ConfigError(f"two runs have the same name: {', '.join(names)}")
    for other in read[1:]:
        wrong = differing(read[0], other, SAME)
        first, second = (scored.details["of"]["model"] for scored in (read[0], other))
        if first != second:
            models = f"model ({read[0].details['model']} / {other.details['model']})"
            wrong.insert(0, models)
        if wrong:
            raise ConfigError(
                f"{names[0]} and {other.name} cannot be compared: they differ in {'; '.join(wrong)}"
            )
    single = len(read) == 1
    return {
        None if single else scored.name: scored.table for scored in read if scored.table is not None
    }


def method_grids(
    scored: Mapping[str | None, ScoreTable],
    axis: str,
    methods: Sequence[str],
    alphas: Sequence[float],
    gammas: Sequence[float],
    draws: int,
) -> list[Grid]:
    """The points of every method, run by run; methods that ask no effect, of the first alone."""
    found: list[Grid] = []
    for number, (run, table) in enumerate(scored.items()):
        own = [m for m in methods if number == 0 or ranked_by(m, axis)]
        points = {m: points_of(table, axis, m, alphas, gammas, draws) for m in own}
        found.append({m: [replace(p, run=run) for p in grid] for m, grid in points.items()})
    return found


def searched_points(grid: Grid) -> Sequence[Point]:
    """The points among which gamma is chosen: those of fasp, or of joint where fasp is left out."""
    return grid.get("fasp") or grid.get("joint") or ()


def chosen_points(
    grid: Mapping[str, Sequence[Point]], gammas: Mapping[Any, Any]
) -> Iterator[Point]:
    """The points to judge on test prompts: of fasp and joint, one gamma for each alpha."""
    for method, points in grid.items():
        seen = set()
        for point in points:
            if method in PROTECTING and point.heads and point.gamma != gammas[point.alpha]:
                continue
            key = (point.alpha, point.draw)
            if key not in seen:  # alpha 0 is one point, whatever the gamma
                seen.add(key)
                yield point if point.heads else replace(point, gamma=None)


def plan_of(
    session: Session,
    grids: Mapping[str, Sequence[Grid]],
    sample_at: Sequence[float],
    changes: int = 0,
) -> ComparePlan:
    """How many sets are read and how many models write, at most.

    changes: of weights, which are read and sampled on every axis.
    """
    searched = judged = models = tokens = 0
    for axis, grid in ((axis, grid) for axis, own in grids.items() for grid in own):
        fasp = searched_points(grid)
        searched += len({point.heads for point in fasp if point.heads})
        # Any gamma does: how many sets there are, not which.
        gammas = {point.alpha: point.gamma for point in fasp}
        points = list(chosen_points(grid, gammas))
        judged += len({point.heads for point in points if point.heads})
        own = 1 + len({p.heads for p in points if p.heads and p.alpha in sample_at})
        own += bool(fasp) + changes  # the search's favourite
        judged += changes
        problem = session.problem(axis, "test")
        models += own
        tokens += own * len(problem.prompts) * problem.samples * problem.new_tokens
    return ComparePlan(
        axes=tuple(grids),
        searched=searched,
        judged=judged,
        sampled=models,
        sampled_tokens=tokens,
    )
