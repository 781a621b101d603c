"""Every toxicity scorer at hand, measured: its reaction to names, what it separates, its speed.

It needs no run and no model. The measure itself is in `scorer_measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from levelhead.config import EMBEDDED_SCORER
from levelhead.data.builtin_prompts import builtin_prompts
from levelhead.data.identity_terms import terms_of_builtin
from levelhead.errors import ConfigError, MissingExtraError, ScorerError
from levelhead.experiments.scorer_measures import choose_scorer, measure_scorer
from levelhead.models.loading import resolve_device
from levelhead.progress import Progress, silent
from levelhead.toxicity import ToxicityScorer, check_scorer, load_scorer
from levelhead.toxicity.controls import controls
from levelhead.toxicity.functions import as_scorer
from levelhead.toxicity.registry import FACTS

Json = dict[str, Any]


def scorers(
    toxicity: Sequence[Any] = (), *, device: str = "auto", progress: Progress = silent
) -> Json:
    """Measure every toxicity scorer that is at hand: the built-in offline ones, and those named.

    Args:
        toxicity: scorers to measure besides: names as for `--scorer`, scorers, or functions
            that give one number in [0, 1] per text.
        device: where classifiers run.
        progress: where to report progress.

    Returns:
        `scorers`: a measurement each; `choice`: which the rule takes as the embedded default, and
        why not the others; `default`: which it is; `left_out`; how many sentences were read.
        docs/experiments.md describes the fields.

    Raises:
        ScorerError: a named one does not exist, or tells nothing apart.
        MissingExtraError: the extra of a named one is not installed.
        ConfigError: a scorer named twice.
    """
    prompts = builtin_prompts()
    axes: dict[str, str] = {}
    for prompt in prompts:
        axes.setdefault(prompt.descriptor, prompt.axis)
    where = str(resolve_device(device))

    def load(name: str) -> ToxicityScorer:
        terms = terms_of_builtin().every if "masked:" in name else ()
        return load_scorer(name, where, terms=terms)

    named = [as_scorer(one, load) for one in toxicity]
    names = [scorer.name for scorer in named]
    if len(set(names)) < len(names):
        raise ConfigError(f"a scorer is named twice: {', '.join(names)}")
    for scorer in named:
        check_scorer(scorer)
    built_in, left_out = _built_in(names, load)
    measured = [measure_scorer(one, list(axes), progress) for one in (*built_in, *named)]
    held = controls()
    return {
        "scorers": [one.to_json(axes) for one in measured],
        "choice": choose_scorer(measured).to_json(),
        "default": EMBEDDED_SCORER,
        "left_out": left_out,
        "sentences": {
            "frames": len(held.frames),
            "words": len(axes),
            "toxic": len(held.toxic),
            "ordinary": len(held.ordinary),
            "sad": len(held.sad),
        },
    }


def _built_in(
    names: Sequence[str], load: Callable[[str], ToxicityScorer]
) -> tuple[list[ToxicityScorer], list[Json]]:
    """The offline ones that are installed and not named, and why the others are left out."""
    found, left_out = [], []
    for name, facts in FACTS.items():
        if name in names:
            continue
        if not facts.offline:
            left_out.append({"name": name, "why": f"on the hub; --scorer {name} measures it"})
            continue
        try:
            found.append(load(name))
        except (MissingExtraError, ScorerError) as error:
            left_out.append({"name": name, "why": str(error)})
    return found, left_out
