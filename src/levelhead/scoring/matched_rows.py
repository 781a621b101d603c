"""Which continuation is read after which prompt: its own, or the same one for all subgroups.

With matched contexts the SAME continuation stands after every subgroup's version of a prompt, so
that contrasts between subgroups are paired. It does not know what is measured on the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from levelhead.data.prompt_selection import matched_groups
from levelhead.records import Prompt
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import Row

SOURCES = {"continuation": 1, "full": 2}
"""Subgroups whose continuations are read after all versions of a prompt.

A second one costs half as much again and halves the noise of what was sampled. Effects on `full`
input, a third of the size, need it for two seeds to agree as well.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """Texts to differentiate: continuation `source[i]` read after prompt `prompt[i]`."""

    rows: tuple[Row, ...]
    prompt: Int[np.ndarray, " rows"]
    source: Int[np.ndarray, " rows"]


def rows_to_read(problem: BiasProblem, base: SampledTexts, *, matched: bool) -> MatchedRows:
    """`matched_rows` with as many sources as the input needs, or `own_rows`."""
    if not matched:
        return own_rows(problem, base)
    return matched_rows(problem, base, sources=SOURCES[problem.toxicity_input])


def own_rows(problem: BiasProblem, base: SampledTexts) -> MatchedRows:
    """Every continuation after its own prompt (unmatched contexts)."""
    pairs = [(int(p), i) for i, p in enumerate(base.prompt)]
    return _rows(problem, base, pairs)


def matched_rows(
    problem: BiasProblem,
    base: SampledTexts,
    max_groups: int | None = None,
    *,
    sources: int = 1,
) -> MatchedRows:
    """Continuations of each group and sample after every subgroup's version of the prompt.

    The `sources` subgroups whose continuations are used rotate over groups and samples. Prompts
    without a counterpart in every subgroup keep their own continuations. With `max_groups`, only
    so many groups, spread evenly over templates.
    """
    pairs = [
        pair for group in _pairs_by_group(problem, base, max_groups, sources) for pair in group
    ]
    whole = {prompt.id for group in matched_groups(problem.prompts) for prompt in group}
    alone = [i for i, p in enumerate(base.prompt) if problem.prompts[p].id not in whole]
    pairs += [(int(base.prompt[i]), i) for i in alone]
    return _rows(problem, base, pairs)


def grouped_rows(problem: BiasProblem, base: SampledTexts) -> list[tuple[Row, ...]]:
    """The rows of `matched_rows`, group by group; prompts without a counterpart are left out.

    All rows of a group have the same continuation, one row after each subgroup's prompt, in the
    order of `problem.subgroups`.
    """
    return [_rows(problem, base, pairs).rows for pairs in _pairs_by_group(problem, base, None, 1)]


def _pairs_by_group(
    problem: BiasProblem, base: SampledTexts, max_groups: int | None, sources: int
) -> Iterator[list[tuple[int, int]]]:
    """(prompt, continuation) of each group, sample and source."""
    position = {prompt.id: i for i, prompt in enumerate(problem.prompts)}
    written = {
        (int(p), int(k)): i for i, (p, k) in enumerate(zip(base.prompt, base.sample, strict=True))
    }
    for number, members in enumerate(_thinned(matched_groups(problem.prompts), max_groups)):
        group = [position[prompt.id] for prompt in members]
        for sample in range(problem.first_sample, problem.first_sample + problem.samples):
            for turn in range(min(sources, len(group))):
                source = group[(number + sample + turn) % len(group)]
                yield [(prompt, written[source, sample]) for prompt in group]


def _thinned(groups: list[list[Prompt]], most: int | None) -> list[list[Prompt]]:
    if most is None or len(groups) <= most:
        return groups
    return [groups[i] for i in np.linspace(0, len(groups) - 1, most).round().astype(int)]


def _rows(
    problem: BiasProblem, base: SampledTexts, pairs: Sequence[tuple[int, int]]
) -> MatchedRows:
    subgroup = problem.subgroup
    return MatchedRows(
        rows=tuple(
            Row(problem.prompt_ids[prompt], base.tokens[source], int(subgroup[prompt]))
            for prompt, source in pairs
        ),
        prompt=np.array([prompt for prompt, _ in pairs]),
        source=np.array([source for _, source in pairs]),
    )
