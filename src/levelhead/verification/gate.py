"""`levelhead verify`: measure a model against its base, judge it, and leave an audit.

The order of work, and nothing else: what is measured stands in `measure`, what it means in
`decision`, what is written in `audit`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from levelhead import journal, runs
from levelhead.config import RunConfig
from levelhead.data.prompts import load_prompts
from levelhead.errors import RunFolderError
from levelhead.journal import watch
from levelhead.journal.lock import locked
from levelhead.metrics.power import Design
from levelhead.progress import Progress, silent
from levelhead.sampling import derived_seed
from levelhead.session import NO_SCORER, Session
from levelhead.stages.fingerprints import experiment_fingerprint
from levelhead.verification.audit import Found, audit
from levelhead.verification.decision import Check, look_errors, verdict_of
from levelhead.verification.measure import (
    MeasuredAxis,
    MeasuredText,
    measure_axis,
    measure_texts,
    texts_of,
)
from levelhead.verification.policy import Policy, read_policy
from levelhead.verification.power import GatePower, components_of, planned_power
from levelhead.verification.subject import Subject, find_subject, load_candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyPlan:
    """The work, known before it starts."""

    subject: str
    base: str
    axes: tuple[str, ...]
    prompts: int
    samples: int
    """Continuations per prompt and model, at the last look."""
    looks: tuple[int, ...]
    sampled_tokens: int
    """By both models, at most."""
    checks: int
    margin: float
    """Of gaps."""
    power: GatePower


def verify(
    path: str | Path,
    *,
    base: str | Path | None = None,
    policy: str | Path | Mapping[str, Any] | Policy | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
    announce: Callable[[VerifyPlan], None] | None = None,
) -> dict[str, Any]:
    """Measure a model against its base on TEST prompts, and judge it by a policy.

    Args:
        path: a run folder, a model's folder, a name on the hub, a GGUF file or an adapter; pruned
            by levelhead or not.
        base: the base model; none: what the run or the model itself names.
        policy: a TOML file, its keys, or a `Policy`; none: no axis' gap may rise by more than
            `DEFAULT_MARGIN` (docs: responsible-use.md).
        out: a file for the audit. Until it is there, what was measured is kept in OUT.unfinished,
            and the same command goes on from it.
        device: where to compute.
        dtype: number format of the weights.
        threads: CPU threads.
        progress: where to report progress.
        announce: called with the plan when every input has been checked.

    Returns:
        The audit: `verdict` ("passed", "failed", "cannot tell"), `passes` (whether the gate
        opens, by the policy's `on_inconclusive`), `exit_code`, `checks` and what they rest on.

    Raises:
        UserError: bad input, before any long work; a margin that the budget does not resolve
            is one.
    """
    rules = read_policy(policy)
    subject = find_subject(path, base)
    config = _config(rules, subject, device, dtype, threads)
    session = Session(config)
    axes = config.axis
    limits = [rules.max_gap_increase, rules.max_mean_toxicity_increase]
    count = len(axes) * sum(limit is not None for limit in limits)
    texts = texts_of(session)
    count += len(texts) * (rules.max_ppl_increase is not None)
    components = components_of(rules, str(session.config.toxicity))
    power = planned_power(rules, _designs(session), components, count)
    session.config = replace(session.config, samples=power.samples)
    looks = rules.looks_at(power.samples)
    problems = [session.problem(axis, "test") for axis in axes]
    for name in texts:
        session.text("test", name)
    candidate = load_candidate(subject, session)
    if announce:
        sampled = sum(len(p.prompts) * p.samples * p.new_tokens for p in problems)
        announce(
            VerifyPlan(
                subject=subject.name,
                base=session.model_name,
                axes=axes,
                prompts=sum(len(p.prompts) for p in problems),
                samples=power.samples,
                looks=looks,
                sampled_tokens=2 * sampled,
                checks=count,
                margin=rules.max_gap_increase,
                power=power,
            )
        )
    with _kept(out, session, candidate) if out is not None else nullcontext():
        progress = watch.watched(progress)
        price = measure_texts(session, candidate, progress)
        found = _judged(rules, session, candidate, price, looks, count, progress)
    result = audit(subject, session, candidate, rules, found, price, power)
    if out is not None:
        try:
            runs.write_json(Path(out), result)
        except OSError as error:
            raise RunFolderError(f"cannot write {out}: {error}") from error
        shutil.rmtree(_unfinished(out), ignore_errors=True)
    return result


def _judged(
    rules: Policy,
    session: Session,
    candidate: PreTrainedModel,
    price: Sequence[MeasuredText],
    looks: tuple[int, ...],
    count: int,
    progress: Progress,
) -> Found:
    """Look by look: axes that passed are done, and one failed check is enough."""
    axes = session.config.axis
    measured: dict[str, MeasuredAxis] = {}
    checks: dict[str, list[Check]] = {axis: [] for axis in axes}
    whole: list[Check] = []
    if (limit := rules.max_ppl_increase) is not None:  # no look makes more of it
        errors = look_errors(rules.confidence, count, looks[-1], looks[-1:])
        whole = [text.check(limit, errors) for text in price]
    taken = []
    for samples in looks:
        errors = look_errors(rules.confidence, count, samples, looks)
        for axis in axes:
            if checks[axis] and verdict_of(checks[axis]) == "passed":
                continue
            earlier = measured.get(axis)
            one = measure_axis(session, axis, candidate, progress, samples, earlier)
            measured[axis], checks[axis] = one, one.checks(rules, errors)
        so_far = [*(check for axis in axes for check in checks[axis]), *whole]
        verdict = verdict_of(so_far)
        taken.append({"samples": samples, "verdict": verdict})
        if verdict != "cannot tell":
            break
    return Found(checks=tuple(so_far), axes=measured, planned=looks, looks=tuple(taken))


def _designs(session: Session) -> dict[str, Design]:
    """How much there is of each axis, before a model is loaded."""
    found = {}
    for axis in session.config.axis:
        prompts = session.chosen_prompts(axis, "test")
        found[axis] = Design(
            prompts=max(2, len(prompts)),
            samples=1,
            subgroups=max(2, len({prompt.subgroup for prompt in prompts})),
            templates=max(2, len({prompt.template for prompt in prompts})),
        )
    return found


def _unfinished(out: str | Path) -> Path:
    """Where work is kept until the audit is there."""
    return Path(f"{out}.unfinished")


@contextmanager
def _kept(out: str | Path, session: Session, candidate: PreTrainedModel) -> Iterator[None]:
    """Go on with what an interrupted process measured of the same models in the same way."""
    folder = _unfinished(out)
    work = folder / journal.FOLDER
    fingerprint = experiment_fingerprint(session, candidate)
    with (
        locked(work),
        watch.watching(work, "verify"),
        journal.stage(folder, "verify", fingerprint),
    ):
        yield


def _config(
    rules: Policy, subject: Subject, device: str, dtype: str, threads: int | None
) -> RunConfig:
    """How to measure: the policy, then the run, then the defaults; all named axes."""
    options = rules.options()
    where: dict[str, Any] = {"device": device, "threads": threads}
    if dtype != "auto":
        where["dtype"] = dtype
    if subject.config is None:
        config = RunConfig(model=subject.base, **options, **where)
    else:
        fresh = derived_seed(subject.config.seed, "verify") % 2**31
        given = {"model": subject.base, "seed": fresh, **options, **where}
        config = replace(subject.config, **given)
    if rules.axes is None:
        axes = tuple(dict.fromkeys(prompt.axis for prompt in load_prompts(config.prompts)))
    else:
        axes = rules.axes
    # Its own plan says how much is sampled; a second scorer is judged nowhere here.
    alone: dict[str, Any] = {"samples": None, "looks": None, "second_toxicity": NO_SCORER}
    return replace(config, axis=axes, all_axes=False, **alone)
