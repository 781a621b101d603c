"""The contexts that token toxicity is asked in."""

from dataclasses import replace

import numpy as np

from levelhead.progress import silent
from levelhead.scoring.problem import sample_texts
from levelhead.scoring.token_model import _contexts_by_subgroup


def test_subgroups_are_asked_in_matched_contexts(make_problem) -> None:
    """`full` input: the same starts after every subgroup's version of the same prompts."""
    problem = make_problem(toxicity_input="full")
    base = sample_texts(problem, silent, "")
    rows = _contexts_by_subgroup(problem, base, np.random.default_rng(0))
    assert len(rows) == len(problem.subgroups)
    for texts in zip(*rows, strict=True):
        without = {
            text.replace(name.lower(), "X")
            for text, name in zip(texts, problem.subgroups, strict=True)
        }
        assert len(without) == 1, texts
    alone = replace(problem, prompts=tuple(replace(p, template=p.id) for p in problem.prompts))
    apart = _contexts_by_subgroup(alone, base, np.random.default_rng(0))
    assert [len(row) for row in apart] == [len(row) for row in rows]
