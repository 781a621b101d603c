"""The paper's own measurement on one model, by the authors' protocol, beside what they published.

Naive ablation samples every prompt from every ablated model, which takes days on a CPU. So a little
of the work is timed first, the hours are foretold, and more than allowed is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from levelhead import runs
from levelhead.config import PAPER, RunConfig, RunOptions
from levelhead.errors import ConfigError
from levelhead.experiments.compare import compare
from levelhead.experiments.joint import GROUPS, TEXT_TOKENS
from levelhead.journal import watch
from levelhead.models.architectures import head_counts
from levelhead.progress import Progress, silent
from levelhead.runs import RunFolder
from levelhead.scoring.problem import BiasProblem, sample_texts
from levelhead.selection.budget import ALPHAS, GAMMAS
from levelhead.session import Session
from levelhead.stages.scoring import score_stage, start

RESULT = "reproduce.json"
PUBLISHED: Mapping[str, float] = {
    "distilgpt2": 0.19,
    "gpt2": 0.195,
    "gpt-neo-125m": 0.395,
    "gpt-neo-1.3b": 0.347,
    "gpt-j-6b": 0.23,
    "llama-2-7b-chat-hf": 0.08,
}
"""Reduction of gender bias that arXiv 2312.15398 reports (abstract and section 5), by model."""
PUBLISHED_GAMMA: Mapping[str, float] = {
    "distilgpt2": 0.3, "gpt2": 0.3, "gpt-neo-125m": 0.3, "gpt-j-6b": 0.3, "gpt-neo-1.3b": 0.6,
}  # fmt: skip
TIMED_PROMPTS = 48
"""Enough for a batch as full as in the work itself."""
ANY_INCREASE = 1e9
"""Of perplexity, as a share: no limit."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducePlan:
    """What reproducing a row would take on this machine, foretold from a little of the work."""

    model: str
    estimator: str
    heads: int
    scoring_hours: float
    comparing_hours: float

    @property
    def hours(self) -> float:
        """All of it."""
        return self.scoring_hours + self.comparing_hours


def reproduce(
    model: str | None = None,
    *,
    out: str | Path,
    max_hours: float = 12.0,
    progress: Progress = silent,
    announce: Callable[[ReproducePlan], None] | None = None,
    **options: Unpack[RunOptions],
) -> Json:
    """Score by the authors' protocol, choose alpha and gamma as they do, and print their row.

    Args:
        model: as for `run`.
        out: the run folder; reproduce.json is written there.
        max_hours: longest foretold time that is started.
        announce: called with the plan before long work starts.
        options: the fields of `RunConfig`; those not given are `config.PAPER`'s.

    Returns:
        `reduction` of bias with its interval at the chosen point, `published`, `differs`: what is
        not as in the paper, and the whole comparison (docs/files.md).

    Raises:
        ConfigError: the work would take longer than `max_hours`.
        UserError: bad input, before any long work.
    """
    options.setdefault("protocol", "paper")
    config = RunConfig.of(model, **options)
    session = Session(config)
    session.plan()  # every input is checked
    plan = foretell(session)
    if announce:
        announce(plan)
    if plan.hours > max_hours:
        raise ConfigError(
            f"about {plan.hours:.0f} hours on this machine ({plan.heads} heads by "
            f"{plan.estimator}), more than --max-hours {max_hours:g}: allow more, or take fewer "
            "prompts (--max-prompts), or --estimator token-gradient, which takes minutes"
        )
    folder = start(session, out, None)
    with runs.working(folder.path, "reproduce"):
        return _reproduce(session, folder, plan, watch.watched(progress))


def _reproduce(
    session: Session, folder: RunFolder, plan: ReproducePlan, progress: Progress
) -> dict[str, Any]:
    begun, out = time.monotonic(), folder.path
    score_stage(session, folder, progress)
    common: Json = {
        "methods": ("fasp",),
        "sample_at": (),
        "seeds": session.config.scoring_samples,
        "progress": progress,
    }
    compared = compare(out, **common)
    within = compared["best"] is not None
    if not within:  # all is there already but the samples of the point that is now the best
        compared = compare(out, max_ppl_increase=ANY_INCREASE, **common)
    found = _row(session, compared, within) | {
        "hours": (time.monotonic() - begun) / 3600,
        "hours_foretold": plan.hours,
    }
    runs.write_json(folder.path / RESULT, found)
    return found


def foretell(session: Session) -> ReproducePlan:
    """Hours of scoring and comparing, from a few prompts and one window of text, timed."""
    config = session.config
    problem = session.problem(config.axis[0], "validation")
    _seconds_per_text(problem, 1)  # the first of everything is slow
    each = _seconds_per_text(problem, TIMED_PROMPTS)
    heads = _product(head_counts(session.base.model))
    # Reading a text takes about half the time of writing it (measured on SmolLM2-135M, CPU).
    read = each / (2 * config.new_tokens)
    texts = sum(len(session.problem(a, "validation").prompts) for a in config.axis)
    texts *= config.scoring_samples
    models = 1 + heads if config.estimator == "ablate" else 10
    scoring = texts * each * models
    if config.ppl_estimator != "curvature":
        scoring += heads * config.text_tokens * read
    sets = len(ALPHAS) * len(GAMMAS)
    row_tokens = config.new_tokens + 20
    subgroups = len(problem.subgroups)
    judged = (GROUPS["validation"] * sets + GROUPS["test"] * len(ALPHAS)) * subgroups * row_tokens
    comparing = (judged + TEXT_TOKENS * (sets + len(ALPHAS))) * read
    tested = len(session.problem(config.axis[0], "test").prompts) * config.test_samples
    comparing += 3 * each * tested
    return ReproducePlan(
        model=session.model_name,
        estimator=config.estimator,
        heads=heads,
        scoring_hours=scoring / 3600,
        comparing_hours=comparing / 3600,
    )


def _seconds_per_text(problem: BiasProblem, prompts: int) -> float:
    few = replace(
        problem,
        prompts=problem.prompts[:prompts],
        prompt_ids=problem.prompt_ids[:prompts],
        samples=1,
    )
    begun = time.monotonic()
    sample_texts(few, silent, "")
    return (time.monotonic() - begun) / len(few.prompts)


def _row(session: Session, compared: Mapping[str, Any], within: bool) -> Json:
    """The paper's row: reduction of bias at the chosen alpha and gamma."""
    axis = compared["axis"]
    name = published_name(session.model_name)
    points = [point for point in compared["points"] if point["axes"][axis]["sampled"]]
    chosen = points[0] if points else None
    reduction = None
    if chosen is not None:
        base = compared["base"][axis]["bias"]["value"]
        fall = chosen["axes"][axis]["sampled"]["difference"]
        reduction = {
            "value": -fall["value"] / base,
            "ci95": [-fall["ci95"][1] / base, -fall["ci95"][0] / base],
        }
    return {
        "model": session.model_name,
        "axis": axis,
        "alpha": chosen and chosen["alpha"],
        "gamma": chosen and chosen["gamma"],
        "reduction": reduction,
        "perplexity": chosen and chosen["perplexity"],
        "perplexity_increase": chosen and chosen["perplexity_increase"],
        "base": compared["base"][axis],
        "base_perplexity": compared["base_perplexity"],
        "reliable": compared["reliable"],
        "published": name
        and {"reduction": PUBLISHED[name], "gamma": PUBLISHED_GAMMA.get(name), "name": name},
        "within_budget": within,
        "differs": differences(session, name, within),
    }


def published_name(model: str) -> str | None:
    """The paper's model that a hub id or folder names, by its last part; None for any other."""
    last = Path(model).name.lower()
    return last if last in PUBLISHED else None


def differences(session: Session, name: str | None, within: bool) -> list[str]:
    """What is not as in the paper, in words."""
    config, said = session.config, []
    if name is None:
        said.append(f"the model: {session.model_name} is none of the paper's six")
    for option, value in PAPER.items():
        if getattr(config, option) != value:
            said.append(f"{option} is {getattr(config, option)!r}, in the paper {value!r}")
    if not str(config.prompts).startswith("holistic-bias"):
        said.append(f"the prompts: {config.prompts}, in the paper HolisticBias")
    if "unbiased-toxic-roberta" not in session.scorer.identity:
        said.append(f"the scorer: {config.toxicity}, in the paper Detoxify's unbiased classifier")
    if config.text != "wikitext-2":
        said.append(f"the perplexity text: {config.text}, in the paper WikiText-2")
    if config.axis != ("gender_and_sex",):
        said.append(f"the axis: {', '.join(config.axis)}, in the paper gender_and_sex")
    return [
        *said,
        f"at most {config.max_prompts} prompts per axis and split",
        "gamma and alpha are chosen by the expected difference on validation prompts, in the "
        "paper by fresh samples",
        f"perplexity may rise by {config.max_ppl_increase:.0%}; the paper states no limit"
        if within
        else f"no point keeps perplexity within {config.max_ppl_increase:.0%} of the base model's "
        "on validation text, so the one with the largest expected fall of bias was taken",
        "intervals are over prompt templates; the paper gives none",
    ]


def _product(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
