"""The command `levelhead`: the group that commands join, and how errors end it."""

from __future__ import annotations

import sys

import click

from levelhead import __version__
from levelhead.cli.signals import MESSAGE, end_in_time, exit_code
from levelhead.errors import LevelheadError
from levelhead.reporting.escape import visible

EXIT_CODES = """\b
Exit codes: 0 done, 1 a limit is broken (verify) or a check failed, or an internal
failure, 2 your mistake (the message says what to change), 3 cannot tell (verify)
or unreliable scores, 70 verify could not finish, 130 interrupted (Ctrl-C),
143 terminated."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="levelhead")
def cli() -> None:
    """Find the attention heads of a language model that add measured bias, and prune them.

    \b
    levelhead demo --out runs/first        everything, on the embedded model
    levelhead run gpt2 --out runs/gpt2     everything, on a model of yours
    levelhead COMMAND --help               what a command does, with its defaults

    The stages of a run are commands too, and share its folder: score, select, prune, evaluate,
    report. Experiments on a run's folder: compare, axes, heads, agree, interactions,
    examples, transfer, rescore; scorers measures toxicity scorers, reproduce a model by the
    paper's protocol; verify is a gate for any model. The pruned model at work: tasks,
    bench-model, export, push. Generated text can be offensive.
    """


def main() -> None:
    """Run a command; every foreseen error ends with its message and exit code, no traceback."""
    end_in_time()
    try:
        code = cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        code = exit_code(error)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except LevelheadError as error:
        # Errors quote prompts, files and names that somebody else wrote.
        click.echo(f"levelhead: {visible(str(error), multiline=True)}", err=True)
        code = error.exit_code
    if code in (130, 143):
        click.echo(f"\n{MESSAGE}", err=True)
    sys.exit(code if isinstance(code, int) else 0)
