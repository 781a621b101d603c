"""`--config run.toml`: flags win over the file, and a file of a run gives the same run."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from levelhead import cli, pipeline
from levelhead.config import RunConfig
from levelhead.price import LIMIT
from levelhead.runs import RUN_FILE, RunFolder

Ask = Callable[..., tuple[int, str]]
asked: list[RunConfig] = []


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a command up to the pipeline: its exit code and output; `asked` gets the options."""

    def caught(model: str | None = None, *, out: Path, **options: Any) -> None:
        known = RunConfig.__dataclass_fields__
        given = {name: value for name, value in options.items() if name in known}
        asked.append(RunConfig.of(model, **given).resolved())
        raise click.exceptions.Exit(0)

    for name in ("run", "score", "reproduce"):
        monkeypatch.setattr(pipeline, name, caught)
    asked.clear()

    def call(*arguments: object) -> tuple[int, str]:
        with CliRunner().isolation() as streams:
            monkeypatch.setattr(sys, "argv", ["levelhead", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            said = streams[1].getvalue().decode() + streams[0].getvalue().decode()
        return int(stop.value.code or 0), said

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(
        'model = "gpt2"\ngamma = 0.7\nalpha = 0.05\nsoft = true\naxis = ["age", "race"]\n'
        'scorer = "sentiment"\nseed = 3\n'
    )
    return path


@pytest.mark.parametrize(
    "given",
    [
        {"model": "gpt2", "gamma": 0.7, "alpha": 0.05, "seed": 2, "axis": ("age", "race")},
        {"model": "gpt2", "budget": 0.03, "toxicity": "sentiment", "threads": 1},
        {"model": "gpt2", "alpha": 0.05, "max_ppl_increase": 0.2, "soft": True},
        {"model": "gpt2", "protocol": "paper"},
        {"model": None, "samples": 2},
    ],
)
@pytest.mark.parametrize("command", ["run", "score", "reproduce"])
def test_the_file_of_a_run_repeats_it(
    ask: Ask, tmp_path: Path, given: dict[str, Any], command: str
) -> None:
    first = RunFolder.create(tmp_path / "first", RunConfig.of(**given))
    code, said = ask(
        command, "--config", tmp_path / "first" / RUN_FILE, "--out", tmp_path / "other"
    )
    assert (code, said) == (0, "")
    assert asked == [first.config]


def test_demo_takes_the_file_of_a_demo_and_no_other(ask: Ask, tmp_path: Path, file: Path) -> None:
    first = RunFolder.create(tmp_path / "first", RunConfig.of(samples=3))
    code, _ = ask("demo", "--config", tmp_path / "first" / RUN_FILE, "--out", tmp_path / "other")
    assert (code, asked) == (0, [first.config])
    code, said = ask("demo", "--config", file, "--out", tmp_path / "other")
    assert code == 2
    assert "the model 'gpt2', and demo has the embedded one" in said


def test_flags_win_over_the_file(ask: Ask, tmp_path: Path, file: Path) -> None:
    out = ("--config", file, "--out", tmp_path / "other")
    assert ask("run", *out)[0] == 0
    one = asked.pop()
    assert (one.model, one.gamma, one.alpha, one.soft) == ("gpt2", 0.7, 0.05, True)
    assert (one.axis, one.toxicity, one.seed) == (("age", "race"), "sentiment", 3)
    flags = ("--gamma", 0.5, "--axis", "religion", "--no-soft", "--scorer", "detoxify")
    assert ask("run", "gpt2-large", *flags, *out)[0] == 0
    one = asked.pop()
    assert (one.model, one.gamma, one.alpha, one.soft) == ("gpt2-large", 0.5, 0.05, False)
    assert (one.axis, one.toxicity, one.seed) == (("religion",), "detoxify", 3)
    assert ask("run", "--seed", 0, *out)[0] == 0  # what is the default wins, too
    assert asked.pop().seed == 0


def test_a_limit_or_a_set_on_the_command_line_decides(ask: Ask, tmp_path: Path, file: Path) -> None:
    out = ("--out", tmp_path / "other")
    budget, limit = ("--budget", 0.03), ("--max-ppl-increase", 0.03)
    for content, flags, wanted in (
        ("gamma = 0.7", (), (None, LIMIT, 0.7)),
        ("gamma = 0.7", limit, (None, 0.03, 0.7)),  # the set stays, and is judged by it
        ("gamma = 0.7", budget, (0.03, 0.03, 0.3)),
        ("max_ppl_increase = 0.02", (), (0.02, 0.02, 0.3)),
        ("max_ppl_increase = 0.02", limit, (0.03, 0.03, 0.3)),
        ("max_ppl_increase = 0.02", budget, (0.03, 0.03, 0.3)),
        ("max_ppl_increase = 0.02", ("--gamma", 0.5), (None, 0.02, 0.5)),
        ("budget = 0.02", (), (0.02, 0.02, 0.3)),
        ("budget = 0.02", limit, (0.03, 0.03, 0.3)),
        ("budget = 0.02", budget, (0.03, 0.03, 0.3)),
        ("budget = 0.02", ("--gamma", 0.5), (None, 0.02, 0.5)),
    ):
        file.write_text(f'model = "gpt2"\n{content}\n')
        assert ask("run", "--config", file, *flags, *out)[0] == 0
        one = asked.pop()
        assert (one.budget, one.max_ppl_increase, one.gamma) == wanted, (content, flags)
    code, said = ask("run", "--config", file, *budget, "--gamma", 0.5, *out)
    assert code == 2
    assert "--budget searches for a set of heads and --gamma names one" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('model = "gpt2"\ngama = 0.3', "did you mean gamma?"),
        ('model = "gpt2"\nbudget = 0.3\ngamma = 0.3', "give one of the two"),
        ('model = "gpt2"\nsamples = "4"', "expected a whole number"),
        ("model = 1", "--model 1 is of the wrong kind: expected a text"),
        ("model = ", "cannot read the options in"),
        ("seed = 1", "Missing argument 'MODEL'"),
        ('model = "gpt2"\nmax_ppl_increase = 0', "is no share by which"),
    ],
)
def test_a_file_with_a_mistake_is_refused(
    ask: Ask, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "my.toml").write_text(content)
    code, said = ask("run", "--config", tmp_path / "my.toml", "--out", tmp_path / "other")
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert asked == []


def test_a_missing_file_is_refused(ask: Ask, tmp_path: Path) -> None:
    code, said = ask("run", "--config", tmp_path / "no.toml", "--out", tmp_path / "other")
    assert code == 2
    assert "no.toml" in said
