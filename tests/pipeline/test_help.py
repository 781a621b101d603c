"""What `--help` teaches: commands in groups, common flags first, research flags on request."""

import re
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner, Result

from levelhead import cli
from levelhead.cli.help import GROUPS, START, Command, Flag
from levelhead.config import RunConfig
from levelhead.config.fields import PANELS

COMMANDS = {
    name: command for name, command in cli.cli.commands.items() if isinstance(command, Command)
}
WITH_RESEARCH = [
    name
    for name, command in COMMANDS.items()
    if any(isinstance(param, Flag) and param.research for param in command.params)
]


def levelhead(*arguments: str) -> Result:
    found = CliRunner().invoke(cli.cli, list(arguments), terminal_width=80)
    assert found.exit_code == 0, found.output
    return found


def flags_in(text: str) -> set[str]:
    """Flags that a help text lists, without those that its sentences mention."""
    return {line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  --")}


def test_every_command_stands_in_a_group_with_a_whole_line() -> None:
    assert set(COMMANDS) == set(cli.cli.commands)
    text = levelhead("--help").output
    assert [title for title in re.findall(r"^(\w+):$", text, re.M) if title in GROUPS] == [*GROUPS]
    assert {command.group for command in COMMANDS.values()} == set(GROUPS)
    for name in COMMANDS:
        line = next(line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert line.endswith((".", "?")), line
        assert not line.endswith("..."), f"{line}: cut at 80 columns"
    assert max(map(len, text.splitlines())) <= 80


def test_the_first_commands_come_first_and_work() -> None:
    text = levelhead("--help").output
    shown = re.findall(r"^  levelhead (\w+) (.+)$", text, re.M)
    assert [name for name, _ in shown] == ["demo", "run", "retry"]
    assert text.index("levelhead demo --out") < text.index("Start:")
    for name, rest in shown:
        known = {one for param in COMMANDS[name].params for one in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known
    start = [name for name, command in COMMANDS.items() if command.group == START]
    listed = re.findall(r"^  ([a-z-]+) ", text[text.index("Start:") : text.index("Stages:")], re.M)
    assert listed[:3] == ["demo", "run", "retry"]
    assert sorted(listed) == sorted(start)


@pytest.mark.parametrize("name", COMMANDS)
def test_research_flags_are_shown_on_request_and_the_last_line_says_how(name: str) -> None:
    brief, whole = levelhead(name, "--help").output, levelhead(name, "--help-all").output
    params = [param for param in COMMANDS[name].params if isinstance(param, click.Option)]
    hidden = {param.opts[0] for param in params if isinstance(param, Flag) and param.research}
    shown = {param.opts[0] for param in params if not param.hidden} - hidden
    assert flags_in(brief) == shown
    assert flags_in(whole) == shown | hidden
    last = brief.rstrip().splitlines()[-1]
    assert last.endswith(f"levelhead {name} --help-all") == bool(hidden)
    assert f"levelhead {name} --help-all" not in whole


def test_run_shows_what_people_need_first() -> None:
    text = levelhead("run", "--help").output
    titles = re.findall(r"^([A-Z][\w ]+):$", text, re.M)
    assert titles == ["Options", *PANELS]
    common = {"--out", "--config", "--axis", "--scorer", "--max-ppl-increase", "--alpha"}
    assert common <= flags_in(text)
    assert not {"--unmatched", "--budget", "--toxicity"} & flags_in(text)
    assert len(flags_in(text)) <= 20
    assert len(flags_in(levelhead("run", "--help-all").output)) > 40
    assert "--no-soft" not in levelhead("run", "--help-all").output


def test_most_commands_have_research_flags_and_not_all() -> None:
    """Else the tests above say nothing."""
    assert {"run", "select", "compare", "verify"} <= set(WITH_RESEARCH)
    assert "results" not in WITH_RESEARCH


def test_old_names_are_hidden_and_say_what_they_are_called() -> None:
    old = [(spec.name, name) for spec in fields(RunConfig) for name in spec.metadata["old"]]
    assert ("toxicity", "--toxicity") in old
    run = COMMANDS["run"]
    for field, name in old:
        value = "full" if field == "toxicity_input" else "sentiment"
        for arguments in ([name, value], [f"{name}={value}"]):
            with CliRunner().isolation() as streams:
                context = run.make_context("run", ["gpt2", "--out", "x", *arguments])
                said = streams[1].getvalue().decode()
            assert context.params[field] == value
            new = next(one.opts[0] for one in run.params if one.name == field)
            assert said.splitlines() == [
                f"levelhead: {name} is called {new} now; the old name works in this version only"
            ]


@pytest.mark.parametrize(
    ("command", "arguments", "name"),
    [
        ("agree", ["x", "--measure", "sentiment"], "measures"),
        ("scorers", ["--toxicity", "sentiment"], "toxicity"),
    ],
)
def test_old_names_of_other_commands(command: str, arguments: list[str], name: str) -> None:
    with CliRunner().isolation() as streams:
        context = COMMANDS[command].make_context(command, arguments)
        assert b"is called --scorer now" in streams[1].getvalue()
    assert context.params[name] == ("sentiment",)


def test_what_follows_two_dashes_is_no_flag() -> None:
    with CliRunner().isolation() as streams:
        context = COMMANDS["run"].make_context("run", ["--out", "x", "--", "--toxicity"])
        assert streams[1].getvalue() == b""
    assert context.params["model"] == "--toxicity"
