"""run.toml: every run writes one, and it repeats the run; a damaged one is refused by name."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from levelhead.attempts import retried
from levelhead.config import RunConfig
from levelhead.config.run_file import EMBEDDED, read_run_file, run_file
from levelhead.errors import ConfigError
from levelhead.runs import CONFIG, RUN_FILE, RunFolder
from levelhead.stages.pruning import take_repair

KINDS: list[dict[str, Any]] = [
    {},
    {"model": "gpt2", "seed": 3, "samples": 2, "axis": ("age", "a \"quoted\" 'axis'")},
    {"model": "gpt2", "gamma": 0.7, "alpha": 0.05, "max_ppl_increase": 0.2, "soft": True},
    {"model": "gpt2", "budget": 0.03},
    {"model": "gpt2", "max_ppl_increase": 0.03, "price_text": ("none",), "time_budget": 1.5},
    {"model": "C:\\models\\π \x7f", "protocol": "paper", "toxicity": "sentiment"},
    {"model": "gpt2", "unit": "layer", "repair": "none", "threads": 2, "looks": "4,8"},
    {"model": "gpt2", "repair": "least-squares"},
    {"model": "gpt2", "budget": 0.03, "soft": True},
    {"model": "gpt2", "budget": 0.03, "protocol": "paper"},
    {"model": "gpt2", "budget": 0.03, "estimator": "hybrid"},
    {"model": "gpt2", "estimator": "hybrid", "max_ppl_increase": 0.2},
]


def reread(config: RunConfig, path: Path) -> RunConfig:
    path.write_text(run_file(config), encoding="utf-8")
    options = read_run_file(path)
    model = options.pop("model")
    return RunConfig.of(None if model == EMBEDDED else model, **options).resolved()


@pytest.mark.parametrize("given", KINDS)
def test_the_file_of_a_run_gives_the_same_options(given: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.of(**given).resolved()
    assert reread(config, tmp_path / "run.toml") == config


def test_every_option_reaches_the_file(tmp_path: Path) -> None:
    """One after the other is set to what is not its default, and read back."""
    others = {"str": "x", "int": 300, "float": 0.25, "bool": True, "tuple[str, ...]": ("x",)}
    for spec in fields(RunConfig):
        if spec.name in ("model", "looks", "unit", "soft", "repair"):
            continue  # which need a form of their own, or suit not all; they stand above
        value = others[str(spec.type).removesuffix(" | None")]
        if spec.name == "finalists":
            value = 7
        value = next((one for one in spec.metadata["choices"] if one != spec.default), value)
        config = RunConfig.of("gpt2", **{spec.name: value}).resolved()
        assert reread(config, tmp_path / "run.toml") == config, spec.name


def test_a_folder_has_the_file_and_a_repair_that_changes_reaches_it(tmp_path: Path) -> None:
    config = RunConfig.of("gpt2", gamma=0.5)
    folder = RunFolder.create(tmp_path / "run", config)
    path = folder.path / RUN_FILE
    assert "gamma = 0.5\n" in path.read_text()
    path.write_text(path.read_text() + "# a note of mine\n")
    RunFolder.create(folder.path, config)
    assert "# a note of mine" in path.read_text(), "going on with a run leaves it as it is"
    path.unlink()
    RunFolder.create(folder.path, config)
    assert path.exists(), "a run of before gets one"
    take_repair(folder, "least-squares")
    assert read_run_file(path)["repair"] == "least-squares"
    assert "least-squares" in (folder.path / CONFIG).read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gama = 0.3", "unknown key 'gama'; did you mean gamma?"),
        ("max-ppl-increase = 0.3", "did you mean max_ppl_increase?"),
        ('toxicity = "detoxify"', "unknown key 'toxicity'; did you mean scorer?"),
        ("zzzzz = 1", "unknown key 'zzzzz'; the keys are all_axes, alpha, "),
        ("[gamma]\nx = 1", "--gamma {'x': 1} is of the wrong kind: expected a number"),
        ('samples = "four"', "--samples 'four' is of the wrong kind: expected a whole number"),
        ("samples = 1.5", "expected a whole number"),
        ("samples = true", "expected a whole number"),
        ('soft = "yes"', "expected true or false"),
        ('axis = "age"', "--axis 'age' is of the wrong kind: expected a list of texts"),
        ("axis = [1]", "expected a list of texts"),
        ("scorer = 1", "--scorer 1 is of the wrong kind: expected a text"),
        ("gamma = 1.5", "--gamma 1.5 is out of range; it must be between 0 and 1"),
        ("gamma = nan", "out of range"),
        ('method = "magic"', "--method 'magic' is unknown; choose from fasp,"),
        ("gamma = 0.3\ngamma = 0.4", "cannot read the options in"),
        ("gamma = ", "cannot read the options in"),
        ("x = " + "[" * 5000, "cannot read the options in"),
        ("#" * 1_000_001, "larger than 1,000,000 bytes"),
        ("\x00", "cannot read the options in"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_run_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('scorer = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml is not UTF-8.*Windows-1252"):
        read_run_file(tmp_path / "latin.toml")
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=f"cannot read the options in {path}"):
            read_run_file(path)


def test_two_names_of_one_limit() -> None:
    """A limit is searched under unless a set is named, which it then only judges."""
    for name in ("budget", "max_ppl_increase"):
        config = RunConfig.of("gpt2", **{name: 0.03})
        assert (config.budget, config.max_ppl_increase) == (0.03, 0.03)
        again = retried(RunConfig.of("gpt2"), {name: 0.02})
        assert (again.budget, again.max_ppl_increase) == (0.02, 0.02)
    config = RunConfig.of("gpt2", max_ppl_increase=0.2, alpha=0.05)
    assert (config.budget, config.max_ppl_increase) == (None, 0.2)
    again = retried(config, {"budget": 0.03})
    assert (again.budget, again.max_ppl_increase) == (0.03, 0.03)
    again = retried(RunConfig.of("gpt2", budget=0.03), {"alpha": 0.05})
    assert (again.budget, again.max_ppl_increase) == (None, 0.03)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": 0.03, "alpha": 0.05}, "--budget searches for a set of heads and --alpha"),
        ({"budget": 0.03, "max_ppl_increase": 0.05}, "are one limit; give one of them"),
        ({"budget": 0}, "no share by which perplexity may rise"),
        ({"max_ppl_increase": 0}, "no share by which perplexity may rise"),
        ({"budget": -0.1}, "--budget -0.1 is out of range"),
        ({"budget": float("nan")}, "out of range"),
        ({"budget": "5%"}, "--budget '5%' is of the wrong kind: expected a number"),
    ],
)
def test_limits_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.of("gpt2", **given)
