"""Unstructured pruning: single attention weights of a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import STAGES, flag, research
from levelhead.cli.options import JSON, RUN, given, show
from levelhead.reporting.escape import visible


@cli.command("prune-weights", group=STAGES, place=6)
@RUN
@flag("--out", required=True, type=click.Path(path_type=Path), help="Where to save the model.")
@flag("--sparsity", type=float, default=None, help="Share of the attention weights to zero.")
@research(
    "--pattern", type=click.Choice(["2:4"]), default=None,
    help="Instead: two of every four inputs of an output go; gamma then only orders them.",
)  # fmt: skip
@flag("--gamma", type=float, default=None, help="Share protected (default: the run's).")
@flag(
    "--allow-unreliable", is_flag=True, help="Go on where the ranking of weights is mostly noise."
)
@flag("--overwrite", is_flag=True, help="Replace a model that is in OUT.")
@JSON
def prune_weights(folder: Path, as_json: bool, **options: Any) -> None:
    """Zero single attention weights instead of removing heads.

    Of RUN's base model, as a stock checkpoint. As heads are chosen: the weights that language
    modelling needs most are protected, of the others those that add most bias go, to first order.
    It makes the model neither smaller nor faster.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars

    with progress_bars() as progress:
        record = pipeline.prune_weights(folder, progress=progress, **given(options))
    show(record, as_json, _summary)


def _summary(record: dict[str, Any]) -> None:
    measured = record["measured"]
    expected = measured["expected_difference"]
    low, high = expected["ci95"]
    click.echo(
        f"{record['zeroed']:,} of {record['weights']:,} attention weights are zero; on held-out "
        f"prompts and text: expected difference of bias ({visible(record['axis'])}) "
        f"{expected['value']:+.4f} [{low:+.4f}, {high:+.4f}], perplexity "
        f"{measured['perplexity_increase']['value']:+.1%}"
    )
    for warning in record["warnings"]:
        click.echo(visible(f"warning: {warning}", multiline=True), err=True)
