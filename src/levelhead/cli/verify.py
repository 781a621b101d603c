"""A gate: whether a model's measured gaps grew against its base."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead.cli.app import cli
from levelhead.cli.deploy import DEVICE, DTYPE
from levelhead.cli.options import JSON, show
from levelhead.cli.progress_options import tell

if TYPE_CHECKING:
    from levelhead.verification.gate import VerifyPlan


@cli.command()
@click.argument("path", metavar="PATH")
@click.option("--base", help="The base model (default: what the run or the model itself names).")
@click.option(
    "--policy", type=click.Path(path_type=Path, dir_okay=False),
    help="Limits and how to measure, a TOML file (default: no axis' gap may rise).",
)  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A file for the audit (JSON); work is kept beside it until it is there.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads (default: torch's).")
@DTYPE
@DEVICE
@JSON
def verify(path: str, as_json: bool, **options: Any) -> None:
    """Measure a model against its base, and fail where a gap grew.

    PATH is a run folder, a model (a folder, a hub id, a GGUF file; pruned by levelhead or not) or
    an adapter. Both models continue held-out prompts of every axis, with the same random numbers.

    \b
    Exit codes: 0 within the limits, 1 a limit is broken (or the budget cannot tell
    and the policy says on_inconclusive = "fail"), 2 your mistake.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.verify import verify_summary

    with progress_bars() as progress:
        found = pipeline.verify(path, progress=progress, announce=_announce, **options)
    show(found, as_json, verify_summary)
    if not found["passes"]:
        sys.exit(1)


def _announce(plan: VerifyPlan) -> None:
    tell(
        f"plan: {plan.subject} against {plan.base}: {plan.prompts:,} test prompts of "
        f"{len(plan.axes)} axes ({', '.join(plan.axes)}), at most {plan.sampled_tokens:,} tokens "
        f"by both; {plan.checks} checks"
    )
