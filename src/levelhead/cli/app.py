"""The command `levelhead`: the group that commands join, and how errors end it."""

from __future__ import annotations

import errno
import io
import sys

import click

from levelhead import __version__
from levelhead.cli.help import Commands
from levelhead.cli.signals import MESSAGE, end_in_time, exit_code
from levelhead.errors import LevelheadError
from levelhead.reporting.escape import visible

EXIT_CODES = """\b
Exit codes: 0 done, 1 a limit is broken (verify), a check failed or an
internal failure, 2 your mistake (the message says what to change), 3 cannot
tell (verify) or unreliable scores, 70 verify could not finish, 130
interrupted (Ctrl-C), 143 terminated."""


@click.group(
    "levelhead",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="levelhead")
def cli() -> None:
    """Find the attention heads of a language model that add measured bias, and prune them.

    A first look, on a small model that levelhead fetches; then a model of yours; then the best set
    of heads that raises perplexity by at most 3%, from the same scores:

    \b
    levelhead demo --out runs/first
    levelhead run gpt2 --out runs/gpt2
    levelhead retry runs/gpt2 --max-ppl-increase 0.03

    A run ends with its report, OUT/report.html. Generated text can be offensive. What a command
    does, and its flags: levelhead COMMAND --help
    """


def too_long(error: OSError) -> str:
    """What to say of a path that this system does not take."""
    where = str(error.filename or "a path")
    longest = max(len(part.encode()) for part in where.split("/"))
    shown = visible(where if len(where) <= 80 else f"{where[:77]}...")
    return (
        f"{shown} is too long: {longest:,} bytes in one name, {len(where.encode()):,} in all (most "
        "systems allow 255 and 4,096); choose a shorter one"
    )


def main() -> None:
    """Run a command; every foreseen error ends with its message and exit code, no traceback."""
    end_in_time()
    write_any_text()
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
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        click.echo(f"levelhead: {too_long(error)}", err=True)
        code = 2
    if code in (130, 143):
        click.echo(f"\n{MESSAGE}", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def write_any_text() -> None:
    r"""Let standard output take every letter: what its encoding lacks is written as `\u0627`.

    Names of axes and generated text are in any script, a Windows console or a pipe under an old
    locale is not; without this, hours of work would end in UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
