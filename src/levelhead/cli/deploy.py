"""Commands about the pruned model at work: other formats, speed, the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelhead.cli.app import cli
from levelhead.cli.help import DEPLOY, flag, research
from levelhead.cli.options import JSON, RUN, show
from levelhead.cli.progress_options import tell
from levelhead.config import DEVICES, DTYPES

if TYPE_CHECKING:
    from levelhead.experiments.bench_model import BenchPlan
    from levelhead.sharing.hub import PushPlan

DEVICE = flag(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where to compute.",
)  # fmt: skip
DTYPE = research(
    "--dtype", type=click.Choice(DTYPES), default="auto", show_default=True,
    help="Number format of the weights (auto: float32 on CPU).",
)  # fmt: skip


@cli.command(group=DEPLOY, place=2)
@click.argument("model", required=False)
@flag(
    "--to", type=click.Choice(["onnx", "gguf"]), required=True,
    help="onnx: any family, uneven layers too. gguf: Llama, Qwen2 and Qwen3 in stock shapes.",
)  # fmt: skip
@flag("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@flag(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16", "q8_0"]), default="float32",
    show_default=True, help="Number format of a GGUF file's matrices.",
)  # fmt: skip
@research(
    "--zero-fill", is_flag=True,
    help="gguf of a compact model: zeros where heads were, no smaller.",
)  # fmt: skip
@flag("--overwrite", is_flag=True, help="Replace a file that is there.")
def export(model: str | None, out: Path, **options: Any) -> None:
    """Write a model as one file for another engine, and check it.

    MODEL is a run folder (its pruned model), or a hub id, folder or GGUF file. An ONNX file is run
    in ONNX Runtime, a GGUF file is read back, before it appears.
    """
    from levelhead import pipeline
    from levelhead.console.progress import progress_bars

    with progress_bars():
        done = pipeline.export_model(model, out=out, **options)
    click.echo(
        f"{done.path}: {done.num_bytes:,} bytes; logits differ from torch by at most "
        f"{done.difference:.1e} of the largest"
    )


@cli.command("bench-model", group=DEPLOY, place=3)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("pruned", type=click.Path(path_type=Path), required=False)
@research(
    "--rounds", type=int, default=20, show_default=True,
    help="Timed rounds, at least 6; as many again where the control is told from 1.",
)  # fmt: skip
@research("--batch-size", type=int, default=1, show_default=True, help="Texts per batch.")
@research("--prompt-tokens", type=int, default=128, show_default=True, help="Of every prompt.")
@research("--new-tokens", type=int, default=32, show_default=True, help="To decode.")
@research("--threads", type=click.IntRange(1), help="CPU threads (default: torch's).")
@research("--no-memory", is_flag=True, help="Do not measure peak memory.")
@DTYPE
@DEVICE
@JSON
def bench_model(
    base: Path, pruned: Path | None, no_memory: bool, as_json: bool, **options: Any
) -> None:
    """Compare size and speed of a pruned model with its base.

    BASE and PRUNED are models, or BASE is a run folder, which holds both. The two take turns, and
    the base runs against itself as a control: where that is not 1, the exit code is 1.
    """
    from levelhead import pipeline
    from levelhead.console.deploy import bench_summary
    from levelhead.console.progress import progress_bars

    with progress_bars() as progress:
        found = pipeline.bench_model(
            base,
            pruned,
            memory=not no_memory,
            progress=progress,
            announce=_announce_bench,
            **options,
        )
    show(found, as_json, bench_summary)
    if not found["trusted"]:
        sys.exit(1)


@cli.command(group=DEPLOY, place=4)
@RUN
@click.argument("repo_id", metavar="REPO_ID")
@flag("--private", is_flag=True, help="Make it private; a public one is refused.")
def push(folder: Path, repo_id: str, private: bool) -> None:
    """Upload the pruned model of RUN and its card to the hub.

    The hub is huggingface.co; REPO_ID is USER/NAME; it is made where it does not exist. The only
    command that sends anything. Needs a token: hf auth login.
    """
    from levelhead import pipeline

    click.echo(pipeline.push(folder, repo_id, private=private, announce=_announce_push))


def _announce_bench(plan: BenchPlan) -> None:
    memory = "; then each once more in a process of its own, for its memory" if plan.memory else ""
    tell(
        f"plan: {plan.rounds} rounds of base, pruned and base again; {plan.batch_size} x "
        f"{plan.prompt_tokens} prompt tokens and {plan.new_tokens} new ones; {plan.threads} "
        f"threads{memory}"
    )


def _announce_push(plan: PushPlan) -> None:
    to = f"{plan.repo_id}{' (private)' * plan.private}"
    tell(f"to {to}: {plan.num_bytes:,} bytes in {', '.join(plan.files)}")
