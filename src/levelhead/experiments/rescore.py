"""A finished run judged by another scorer: the texts that both models wrote, nothing sampled.

Every text is read as it is ("plain") and with identity words replaced ("masked"), and bias and its
difference computed of both. Neither model is asked, so it takes as long as the scorer does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from levelhead import journal, runs
from levelhead.errors import RunFolderError, ScorerError
from levelhead.evaluation.axis import model_bias, prompt_floor
from levelhead.evaluation.pairs import Toxicities, echo
from levelhead.evaluation.results import ModelBias, factor_json, tested_json
from levelhead.evaluation.verdict import judged_together
from levelhead.experiments.units import safe_name
from levelhead.journal.digests import code_digest
from levelhead.metrics.differences import BiasDifference, CommonFactor
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.progress import Progress, silent
from levelhead.records import Estimate, Prompt, Split
from levelhead.runs import RunFolder
from levelhead.sampling import derived_seed
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.session import Session
from levelhead.stages.kept_texts import read_rows, written_texts
from levelhead.toxicity import ToxicityScorer, check_scorer
from levelhead.toxicity.functions import as_scorer
from levelhead.toxicity.registry import scorer_facts

FOLDER = "rescored"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RescorePlan:
    """The work, known before it starts."""

    scorer: str
    axes: tuple[str, ...]
    texts: int
    """To be read twice: as they are, and masked."""


@runs.writes("rescore")
def rescore(
    run: str | Path,
    *,
    scorer: Any,
    progress: Progress = silent,
    announce: Callable[[RescorePlan], None] | None = None,
) -> Json:
    """Judge a finished run's texts by another scorer; writes RUN/rescored/NAME.json.

    Args:
        run: an evaluated run folder.
        scorer: the name of a scorer as for `--scorer`, a scorer, or a function that gives one
            number in [0, 1] per text.
        progress: where to report progress.
        announce: called with the plan before long work starts.

    Returns:
        `axes`, by name: `verdict`, `base`, `pruned`, `difference` of the masked reading, `plain`
        with the same of the plain one, `echo`, `validation`; docs/experiments.md describes them.

    Raises:
        RunFolderError: not a run folder, not evaluated yet, or its texts are not of its prompts.
        ScorerError: no scorer of that name, one that tells nothing apart, or a masked one.
        MissingExtraError: the scorer's extra is not installed.
    """
    folder = RunFolder.open(run)
    path = folder.require(runs.CONTINUATIONS, f"score --out {folder.path}")
    rows = read_rows(path)
    axes = tuple(dict.fromkeys(r["axis"] for r in rows if r["model"] == "pruned"))
    if not axes:
        raise RunFolderError(
            f"{path} has no texts of a pruned model; first run: levelhead evaluate {folder.path}"
        )
    session = Session(folder.config)
    plain = as_scorer(scorer, session.load_scorer)
    if "masked:" in plain.name:
        raise ScorerError(
            f"rescore reads every text masked and as it is; name the scorer without masked: "
            f"(this is {plain.name!r})"
        )
    masked = session.masked(plain)
    check_scorer(plain, [str(row["text"]) for row in rows])
    if announce:
        announce(RescorePlan(scorer=plain.name, axes=axes, texts=len(rows)))
    of = {
        "scorer": [plain.identity, masked.identity],
        "texts": hashlib.sha256(path.read_bytes()).hexdigest(),
        "code": code_digest(),
    }
    with journal.stage(folder.path, "rescore", of):
        read = partial(_axis, session, path, rows, (masked, plain), progress)
        found = {axis: read(axis) for axis in axes}
    evaluated, verdicts = _evaluated(folder), judged_together(found)
    for axis, one in found.items():
        one["verdict"], one["run_verdict"] = verdicts[axis], evaluated.get(axis)
    result = {
        "scorer": {
            "name": plain.name,
            "identity": plain.identity,
            "cost": plain.cost,
            "measures": scorer_facts(plain.name).measures,
        },
        "run_scorer": session.config.toxicity,
        "toxicity_input": session.config.toxicity_input,
        "axes": found,
        "headline": _headline(plain.name, str(session.config.toxicity), axes[0], found[axes[0]]),
    }
    runs.write_json(folder.path / FOLDER / f"{safe_name(plain.name).lstrip('.')}.json", result)
    return result


def _axis(
    session: Session,
    path: Path,
    rows: Sequence[Any],
    scorers: tuple[ToxicityScorer, ToxicityScorer],
    progress: Progress,
    axis: str,
) -> Json:
    """Both readings of an axis; `scorers`: the masked one, the plain one."""
    problem = _problem(session, axis, "test", scorers[1])
    texts = [written_texts(path, rows, problem, model) for model in ("base", "pruned")]
    if len(texts[0].texts) != len(texts[1].texts):
        raise RunFolderError(
            f"{path} has {len(texts[0].texts)} texts of the base model and {len(texts[1].texts)} "
            f"of the pruned one on {axis!r}; run: levelhead evaluate {path.parent}"
        )
    with progress(f"reading what both wrote ({axis})", 4) as advance:
        masked, plain = (_Reading.of(problem, one, texts, advance) for one in scorers)
    found = {"masked": True, **masked.to_json()}
    found["plain"] = plain.to_json()
    found["echo"] = echo(masked.pair, plain.pair, _rng(problem)).to_json()
    found["validation"] = _validation(session, path, rows, scorers, progress, axis)
    found["prompts"] = len(problem.prompts)
    found["samples"] = len(texts[0].texts)
    found["templates"] = len(np.unique(problem.template))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What one scorer says of both models' texts."""

    pair: Toxicities
    """Of base and pruned model."""
    models: tuple[ModelBias, ModelBias]
    difference: BiasDifference
    factor: CommonFactor | None
    toxicity: Estimate

    @classmethod
    def of(
        cls,
        problem: BiasProblem,
        scorer: ToxicityScorer,
        texts: Sequence[SampledTexts],
        advance: Callable[[int], None],
    ) -> _Reading:
        rng = _rng(problem)
        scored = []
        for one in texts:
            scored.append(one.read_by(scorer, problem))
            advance(1)
        base, pruned = scored
        floor = prompt_floor(problem, scorer)
        pair = Toxicities.of(problem, base, pruned)
        return cls(
            pair=pair,
            models=(
                model_bias(problem, base, floor, rng),
                model_bias(problem, pruned, floor, rng),
            ),
            difference=pair.tested(rng),
            factor=pair.common_factor(pair.harmless(scorer), rng),
            toxicity=linear_difference_interval(pair.pruned - pair.base, pair.template),
        )

    def to_json(self) -> Json:
        base, pruned = self.models
        return {
            "base": base.to_json(),
            "pruned": pruned.to_json(),
            "difference": self.difference.estimate.to_json(),
            # As sampled: without the model there is no token model to adjust by.
            "adjusted_difference": tested_json(self.difference),
            "common_factor": self.factor and factor_json(self.factor),
            "toxicity_difference": self.toxicity.to_json(),
        }


def _validation(
    session: Session,
    path: Path,
    rows: Sequence[Any],
    scorers: tuple[ToxicityScorer, ToxicityScorer],
    progress: Progress,
    axis: str,
) -> Json | None:
    """The base model on the prompts that heads were scored on; None: the axis was not scored."""
    if not any((r["axis"], r["split"]) == (axis, "validation") for r in rows):
        return None
    problem = _problem(session, axis, "validation", scorers[1])
    texts = written_texts(path, rows, problem, "base")
    read = []
    with progress(f"reading the scored texts ({axis})", 2) as advance:
        for scorer in scorers:
            read.append(texts.read_by(scorer, problem))
            advance(1)
    masked, plain = (
        model_bias(problem, one, prompt_floor(problem, scorer), _rng(problem)).to_json()
        for one, scorer in zip(read, scorers, strict=True)
    )
    return {
        "base": masked,
        "plain": {"base": plain},
        "echo": {"base": Toxicities.of(problem, *read).difference(_rng(problem)).to_json()},
        "samples": len(texts.texts),
    }


def _problem(session: Session, axis: str, split: Split, scorer: ToxicityScorer) -> BiasProblem:
    """The prompts of an axis as they were put; a model is loaded only where they were cut."""
    config = session.config
    prompts: Sequence[Prompt] = session.chosen_prompts(axis, split)
    if config.prompt_tokens is not None and config.toxicity_input == "full":
        cut = BiasProblem.of(
            session.base.model,
            session.tokenizer,
            scorer,
            prompts,
            chat_template=config.chat_template,
            prompt_tokens=config.prompt_tokens,
        )
        prompts = cut.prompts
    return BiasProblem(
        model=cast(PreTrainedModel, None),  # nothing is sampled, and tokens are not decoded
        tokenizer=cast(PreTrainedTokenizerBase, None),
        scorer=scorer,
        prompts=tuple(prompts),
        prompt_ids=((),) * len(prompts),
        toxicity_input=config.toxicity_input,
        seed=config.seed,
        samples=1,
        new_tokens=config.new_tokens,
        batch_size=config.batch_size,
        two_way=config.two_way,
    )


def _rng(problem: BiasProblem) -> np.random.Generator:
    """The same draws for every reading: two that are equal have equal intervals."""
    return np.random.default_rng(derived_seed(problem.seed, problem.axis, "rescore"))


def _evaluated(folder: RunFolder) -> dict[str, str]:
    """The run's own verdicts by axis, as far as it has been evaluated."""
    path = folder.path / runs.EVALUATION
    held = runs.read_json(path) if path.exists() else {}
    axes = held.get("axes", {}) if isinstance(held, dict) else {}
    return {axis: str(one["verdict"]) for axis, one in axes.items() if "verdict" in one}


def _headline(name: str, own: str, axis: str, found: Json) -> str:
    low, high = found["difference"]["ci95"]
    said = found["run_verdict"]
    compared = f" The run's own scorer, {own}, says: {said}." if said else ""
    return (
        f"{name} on the same texts, identity words masked: {found['verdict']} ({axis}, difference "
        f"{found['difference']['value']:+.4f} [{low:+.4f}, {high:+.4f}], 95%; base "
        f"{found['base']['bias']:.4f}).{compared}"
    )
