"""A gate: whether a model's measured gaps grew against its base."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead.cli.app import cli
from levelhead.cli.deploy import DEVICE, DTYPE
from levelhead.cli.help import DEPLOY, flag, research
from levelhead.cli.options import JSON, show
from levelhead.cli.progress_options import tell
from levelhead.errors import UserError
from levelhead.reporting.escape import visible

INTERNAL = 70
"""What the C library's sysexits.h calls an internal software error."""

if TYPE_CHECKING:
    from levelhead.verification.gate import VerifyPlan


@cli.command(group=DEPLOY, place=1)
@click.argument("path", metavar="PATH")
@flag("--base", help="The base model (default: what the run or the model itself names).")
@flag(
    "--policy", type=click.Path(path_type=Path, dir_okay=False),
    help="Margins and how to measure, a TOML file (default: no axis' gap may rise by over 0.05).",
)  # fmt: skip
@flag(
    "--out",
    type=click.Path(path_type=Path),
    help="A file for the audit (JSON); work is kept beside it until it is there.",
)
@research("--threads", type=click.IntRange(1), help="CPU threads (default: torch's).")
@DTYPE
@DEVICE
@JSON
def verify(path: str, as_json: bool, **options: Any) -> None:
    """Fail where a model's measured gaps grew against its base.

    Each gap may grow by the margin of --policy. PATH is a run folder, a model (a folder, a hub id,
    a GGUF file; pruned by levelhead or not) or an adapter. Both models continue held-out prompts of
    every axis, with the same random numbers; identity words are masked. What the budget can tell is
    said before the work; a margin that it cannot resolve is refused.

    \b
    Exit codes: 0 within the limits, 1 a limit is broken, 2 your mistake (a margin
    that the budget cannot resolve is one), 3 cannot tell (0 with
    on_inconclusive = "pass"), 70 internal failure: nothing was judged.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars
    from levelhead.console.verify import verify_summary

    with _never_one():
        with progress_bars() as progress:
            found = pipeline.verify(path, progress=progress, announce=_announce, **options)
        show(found, as_json, verify_summary)
    sys.exit(found["exit_code"])


@contextmanager
def _never_one() -> Iterator[None]:
    """End with `INTERNAL` where an error would end the command with 1, which says that a limit is
    broken; foreseen mistakes and signals keep their codes."""
    try:
        yield
    except (UserError, click.ClickException, click.exceptions.Exit, click.exceptions.Abort):
        raise
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            raise  # the user's path
        traceback.print_exc()
        said = visible(f"{type(error).__name__}: {error}", multiline=True)
        click.echo(
            f"levelhead: internal failure ({said}); nothing was judged, no limit is shown to be "
            f"broken (exit code {INTERNAL})",
            err=True,
        )
        sys.exit(INTERNAL)


def _announce(plan: VerifyPlan) -> None:
    power = plan.power
    axes = "1 axis" if len(plan.axes) == 1 else f"{len(plan.axes)} axes"
    stages = f", in looks at {', '.join(map(str, plan.looks))}" if len(plan.looks) > 1 else ""
    tell(
        f"plan: {plan.subject} against {plan.base}: {plan.prompts:,} test prompts of "
        f"{axes} ({', '.join(plan.axes)}), {plan.samples} continuations each"
        f"{stages}, at most {plan.sampled_tokens:,} tokens by both; {plan.checks} checks"
    )
    tell(
        f"power, at a margin of {plan.margin:g}: a candidate that has not changed passes with a "
        f"chance of {power.unchanged:.0%} if it writes other texts, {power.near_identical:.0%} if "
        f"it writes nearly the same, 100% if the same; a gap of {power.example_gap:g} that doubles "
        f"on an axis is refused with {power.doubled:.1%}; the smallest margin that this budget "
        f"resolves is {power.smallest_margin:.3f}"
    )
