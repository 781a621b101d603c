"""What both models write after the same prompts, side by side: to be read, not to be counted.

Base and pruned model draw the same random numbers, so that a difference is the heads' doing; the
versions of one template, a prompt per subgroup, do too. Generated text can be offensive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from levelhead import runs
from levelhead.data.prompt_selection import matched_groups
from levelhead.errors import ConfigError, PromptError
from levelhead.evaluation.base import as_pruned
from levelhead.progress import Progress, silent
from levelhead.records import Prompt
from levelhead.runs import RunFolder
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.stages.run_session import session_of
from levelhead.stages.selecting import read_selection

RESULT = "examples.json"
Json = dict[str, Any]


@runs.writes("examples")
def examples(
    run: str | Path,
    *,
    templates: Sequence[str] = (),
    groups: int = 2,
    samples: int = 2,
    seed: int | None = None,
    progress: Progress = silent,
) -> Json:
    """Continuations of test prompts by the base and the pruned model; writes RUN/examples.json.

    Args:
        run: a run folder with a selection.
        templates: names of templates to show; none: `groups` of them, spread over all.
        groups: how many templates to show where none is named.
        samples: continuations per prompt and model.
        seed: of the continuations; none: the run's.

    Returns:
        `prompts`: per prompt `prompt`, `subgroup`, `template`, and `base` and `pruned`, each a
        list of `text` and `toxicity`.

    Raises:
        RunFolderError: not a run folder, or nothing selected in it.
        PromptError: a template that the test prompts do not have.
        ConfigError: fewer than one sample or group.
    """
    if samples < 1 or groups < 1:
        raise ConfigError(f"--samples {samples} and --groups {groups} must be at least 1")
    folder = RunFolder.open(run)
    selection = read_selection(folder.require(runs.SELECTION, f"select {run}"))
    axis = str((selection.details or {}).get("axis") or folder.config.axis[0])
    config = folder.config if seed is None else replace(folder.config, seed=seed)
    session = session_of(folder, replace(config, samples=samples))
    problem = _of_prompts(session.problem(axis, "test"), templates, groups)
    base = sample_texts(problem, progress, "the base model writes")
    with as_pruned(session, selection, progress)():
        pruned = sample_texts(problem, progress, "the pruned model writes")
    found = {
        "axis": axis,
        "scorer": session.scorer.identity,
        "toxicity_input": problem.toxicity_input,
        "seed": problem.seed,
        "prompts": [
            {
                "prompt": prompt.text,
                "subgroup": prompt.subgroup,
                "template": prompt.template,
                "base": _written(base, i),
                "pruned": _written(pruned, i),
            }
            for i, prompt in enumerate(problem.prompts)
        ],
    }
    runs.write_json(folder.path / RESULT, found)
    return found


def _of_prompts(problem: BiasProblem, templates: Sequence[str], groups: int) -> BiasProblem:
    """The problem with the prompts of some templates only, subgroup by subgroup."""
    known = list(dict.fromkeys(prompt.template for prompt in problem.prompts))
    for name in templates:
        if name not in known:
            raise PromptError(
                f"the test prompts have no template {name!r}; they have {', '.join(known[:20])}"
                + (" and more" if len(known) > 20 else "")
            )
    whole = matched_groups(problem.prompts)
    by_template: dict[str, list[Prompt]] = {}
    for group in whole or [[prompt] for prompt in problem.prompts]:
        by_template.setdefault(group[0].template, group)
    chosen = list(templates) or _spread(list(by_template), groups)
    ids = {prompt.id for name in chosen for prompt in by_template.get(name, _of(problem, name))}
    kept = [i for i, prompt in enumerate(problem.prompts) if prompt.id in ids]
    kept.sort(key=lambda i: (problem.prompts[i].template, problem.prompts[i].subgroup))
    return replace(
        problem,
        prompts=tuple(problem.prompts[i] for i in kept),
        prompt_ids=tuple(problem.prompt_ids[i] for i in kept),
    )


def _of(problem: BiasProblem, template: str) -> list[Prompt]:
    return [prompt for prompt in problem.prompts if prompt.template == template]


def _spread(names: Sequence[str], most: int) -> list[str]:
    places = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    return [names[i] for i in places]


def _written(texts: SampledTexts, prompt: int) -> list[Mapping[str, Any]]:
    return [
        {"text": texts.texts[i], "toxicity": float(texts.toxicity[i])}
        for i in np.flatnonzero(texts.prompt == prompt)
    ]
