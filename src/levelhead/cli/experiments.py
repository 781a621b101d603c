"""The paper's experiments: methods compared, and a row of its table reproduced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead import runs
from levelhead.cli.app import cli
from levelhead.cli.config_file import CONFIG, model_of
from levelhead.cli.help import STUDIES, flag, research
from levelhead.cli.options import JSON, OUT, RISE, announce, flag_named, given, options_of, show
from levelhead.cli.progress_options import tell
from levelhead.config import BOUNDARY, EVALUATE, HEAD_METHODS, SCORE
from levelhead.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from levelhead.experiments.compare_plan import ComparePlan
    from levelhead.experiments.reproduce import ReproducePlan

GRID = {"alpha": "0, 0.02 .. 0.2", "gamma": "0.2, 0.3 .. 0.7"}
OF_A_RUN = ("max_prompts", "axis")
"""Scoring options that may be given for a run that is scored already."""


@cli.command(group=STUDIES)
@click.argument("targets", metavar="[RUN ... or MODEL]", nargs=-1)
@flag("--out", type=click.Path(path_type=Path), help="The run folder to make of a MODEL.")
@flag(
    "--method", "methods", type=click.Choice(HEAD_METHODS), multiple=True,
    help="Method to compare; repeatable (default: all).",
)  # fmt: skip
@flag("--alphas", default=GRID["alpha"], show_default=True, help="Shares of heads pruned.")
@flag("--gammas", default=GRID["gamma"], show_default=True, help="Shares protected, for fasp.")
@research(
    "--sample-at", type=float, multiple=True, default=(0.1,), show_default=True,
    help="Alpha whose points are proven by fresh sampling; repeatable.",
)  # fmt: skip
@research(
    "--seeds", type=click.IntRange(1), default=3, show_default=True,
    help="Independent continuations of every test prompt.",
)  # fmt: skip
@research(
    "--draws", type=click.IntRange(1), default=3, show_default=True, help="Draws of method random."
)
@flag(
    "--max-ppl-increase", type=RISE, default=None,
    help="Share by which perplexity may rise (0.05: by 5%; default: the run's).",
)  # fmt: skip
@research("--parquet", is_flag=True, help="Write points.parquet beside points.csv.")
@options_of(SCORE, BOUNDARY)
@JSON
def compare(
    targets: tuple[str, ...],
    out: Path | None,
    methods: tuple[str, ...],
    alphas: str,
    gammas: str,
    sample_at: tuple[float, ...],
    seeds: int,
    draws: int,
    max_ppl_increase: float | None,
    parquet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare all methods over alpha, on held-out prompts.

    A RUN's own head scores are used; a MODEL (without one, the embedded one) is scored first, into
    --out. FASP's gamma is chosen on validation prompts under the perplexity budget; every point is
    judged on test prompts and text; the points of --sample-at are proven by fresh sampling. Writes
    RUN/compare/compare.json and points.csv. The same command goes on where it stopped. Several
    RUNs of one model (other seeds or estimators) are compared with each other, in the first.
    """
    from levelhead import pipeline
    from levelhead.console.compare import comparison_summary
    from levelhead.console.progress import progress_bars

    wanted = given(options)
    with progress_bars() as progress:
        run, others = _runs(targets)
        if run is None:
            if out is None:
                raise click.UsageError("a MODEL that is not a run folder needs --out DIR")
            model = targets[0] if targets else None
            pipeline.score(model, out=out, progress=progress, announce=announce, **wanted)
            run = out
        elif unknown := sorted(set(wanted) - set(OF_A_RUN)):
            raise ConfigError(
                f"{flag_named(unknown[0])} belongs to scoring, and {run} is scored "
                "already; leave it out, or give a MODEL and --out"
            )
        found = pipeline.compare(
            run,
            *others,
            axis=wanted.get("axis", ()),
            methods=methods or HEAD_METHODS,
            alphas=_shares("alphas", alphas),
            gammas=_shares("gammas", gammas),
            sample_at=sample_at,
            seeds=seeds,
            draws=draws,
            max_ppl_increase=max_ppl_increase,
            max_prompts=wanted.get("max_prompts"),
            parquet=parquet,
            progress=progress,
            announce=_announce,
        )
    show(found, as_json, comparison_summary)
    click.echo(f"points: {run / 'compare' / 'points.csv'}", err=True)


@cli.command(group=STUDIES)
@click.argument("model", required=False)
@OUT
@CONFIG
@flag(
    "--max-hours", type=click.FloatRange(0), default=12.0, show_default=True,
    help="Longest foretold time that is started.",
)  # fmt: skip
@options_of(SCORE, EVALUATE)
@JSON
def reproduce(
    model: str | None, out: Path, max_hours: float, as_json: bool, **options: Any
) -> None:
    """Measure MODEL as the paper does, beside the paper's row.

    Options that are not given are the authors' (--protocol paper). Their way of scoring heads
    takes days on a CPU: the hours are foretold first, and more than --max-hours is refused. For
    the paper's prompts add --prompts holistic-bias. The same command goes on where it stopped.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.reproduce import reproduction_summary

    with progress_bars() as progress:
        found = pipeline.reproduce(
            model_of(model),
            out=out,
            max_hours=max_hours,
            progress=progress,
            announce=_announce_hours,
            **given(options),
        )
    show(found, as_json, reproduction_summary)


def _announce_hours(plan: ReproducePlan) -> None:
    tell(
        f"plan: {plan.heads} heads scored by {plan.estimator}, about {plan.scoring_hours:.1f} "
        f"hours on this machine, then {plan.comparing_hours:.1f} to choose and prove a set"
    )


def _runs(targets: tuple[str, ...]) -> tuple[Path | None, list[Path]]:
    """The first run and the others; none where a single target is no run."""
    paths = [Path(target) for target in targets]
    wrong = [path for path in paths if not runs.is_run(path)]
    if wrong and len(paths) > 1:
        raise RunFolderError(f"{wrong[0]} is not a run folder; several targets must all be runs")
    return (None, []) if wrong or not paths else (paths[0], paths[1:])


def _shares(name: str, text: str) -> tuple[float, ...]:
    """Numbers from "0, 0.1, 0.2" or, evenly spaced, "0, 0.02 .. 0.2".

    Raises:
        ConfigError: anything else.
    """
    wrong = ConfigError(
        f"--{name} {text!r} is not a list of shares such as '0, 0.1, 0.2' or '0, 0.02 .. 0.2'"
    )
    start, dots, end = text.partition("..")
    try:
        numbers = [float(part) for part in start.split(",") if part.strip()]
        last = float(end) if dots else None
    except ValueError:
        raise wrong from None
    if last is not None:
        if len(numbers) < 2 or not numbers[-1] - numbers[-2] > 0 or last < numbers[-1]:
            raise wrong
        step = numbers[-1] - numbers[-2]
        steps = round((last - numbers[-1]) / step)
        numbers += [round(numbers[-1] + step * i, 10) for i in range(1, steps + 1)]
    if not numbers:
        raise wrong
    return tuple(dict.fromkeys(numbers))


def _announce(plan: ComparePlan) -> None:
    tell(
        f"plan ({', '.join(plan.axes)}): at most {plan.searched} sets of heads are read on "
        f"validation prompts to choose gamma, {plan.judged} on test prompts; {plan.sampled} "
        f"models, the base among them, write at most {plan.sampled_tokens:,} tokens; what an "
        "earlier comparison of this run has left is not done again"
    )
