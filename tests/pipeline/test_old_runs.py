"""A folder that an older levelhead left is read, and nothing is computed in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
from click.testing import CliRunner

import levelhead
from levelhead import runs
from levelhead.cli import cli
from levelhead.errors import RunFolderError
from levelhead.experiments.findings import OF_PLAIN_TEXTS
from levelhead.runs import RunFolder
from levelhead.session import Session

NEW_OPTIONS = ("unmasked", "second_toxicity", "identity_terms", "looks")
NEW_OF_AN_AXIS = (
    "judged", "masked", "scorer", "own_group_mentions", "second_scorer", "common_factor", "floor",
    "plain", "echo",
)  # fmt: skip


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def without(data: dict[str, Any], *names: str) -> None:
    for name in names:
        data.pop(name, None)


@pytest.fixture(scope="module")
def older(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the form of format 1: options and fields that came later are not in it."""
    out = tmp_path_factory.mktemp("older") / "run"
    levelhead.run(str(inputs / "model"), out=out, unmasked=True, **options | {"samples": 2})
    rmtree(out / runs.WORK)
    rewrite(out / runs.CONFIG, lambda d: (without(d, *NEW_OPTIONS), d.update(levelhead_run=1)))
    rewrite(
        out / runs.EVALUATION,
        lambda d: (without(d, "looks"), without(d["axes"]["gender"], *NEW_OF_AN_AXIS)),
    )
    return out


@pytest.fixture
def old(older: Path, tmp_path: Path) -> Path:
    return Path(copytree(older, tmp_path / "run"))


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and runs.WORK not in p.parts]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_it_is_read_as_what_it_was(old: Path) -> None:
    folder = RunFolder.open(old, old=True)
    assert folder.old
    assert folder.config.unmasked
    assert folder.config.second_toxicity == "none"
    session = Session(folder.config)
    assert session.scorer.name == "profanity-check"
    assert session.second_scorer is None
    assert runs.read_json(old / runs.CONFIG)[runs.MARK] == 1, "reading changes nothing"


def test_what_reads_works(old: Path, tmp_path: Path) -> None:
    page = levelhead.report(old, "md").read_text()
    assert "an older levelhead made this run" in page
    facts = runs.read_json(levelhead.report(old, "json"))
    assert facts["warnings"][0] == OF_PLAIN_TEXTS
    assert facts["config"]["unmasked"] is True
    chosen = levelhead.select(old, gamma=0.2, alpha=0.12)
    assert len(chosen.heads) == 2
    assert runs.read_json(old / runs.SELECTION)["heads"] == [list(h) for h in chosen.heads]
    levelhead.prune(old)
    levelhead.prune(old, out=tmp_path / "elsewhere", format="zeroed")
    assert levelhead.heads(old)["axes"] == ["gender"]
    for command in (["status", str(old)], ["heads", str(old)], ["report", str(old)]):
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_a_folder_of_this_levelhead_is_computed_in_and_said_nothing_of(old: Path) -> None:
    """Control: the same folder with the mark of the present format."""
    rewrite(old / runs.CONFIG, lambda d: d.update(levelhead_run=runs.FORMAT, unmasked=True))
    assert not RunFolder.open(old).old
    (old / runs.EVALUATION).unlink()
    assert levelhead.evaluate(old)["axes"]["gender"]["masked"] is False
    assert OF_PLAIN_TEXTS not in runs.read_json(levelhead.report(old, "json"))["warnings"]


@pytest.mark.parametrize(
    "compute",
    [
        lambda run, _: levelhead.evaluate(run),
        lambda run, _: levelhead.agree(run),
        lambda run, _: levelhead.compare(run),
        lambda run, _: levelhead.transfer(run),
        lambda run, _: levelhead.interactions(run),
        lambda run, _: levelhead.examples(run),
        lambda run, _: levelhead.rescore(run, scorer="toxicityclassifier"),
        lambda run, _: levelhead.verify(run),
        lambda run, _: levelhead.select(run, method="joint", gamma=0.2, alpha=0.12, finalists=2),
        lambda run, options: levelhead.score(options.pop("model"), out=run, **options),
        lambda run, options: levelhead.run(
            options.pop("model"), out=run, unmasked=True, second_toxicity="none", **options
        ),
    ],
)
def test_nothing_is_computed_in_it(
    compute: Callable[[Path, dict[str, Any]], object],
    old: Path,
    inputs: Path,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("levelhead.session.load_base", lambda *a, **k: pytest.fail("loaded"))
    before = digests(old)
    with pytest.raises(
        RunFolderError, match=r"run format 1: .* start a new run with another --out"
    ):
        compute(old, {"model": str(inputs / "model"), **options})
    assert digests(old) == before


def test_a_format_to_come_is_not_guessed_at(old: Path) -> None:
    rewrite(old / runs.CONFIG, lambda d: d.update(levelhead_run=runs.FORMAT + 1))
    with pytest.raises(RunFolderError, match=f"run format {runs.FORMAT + 1}.*upgrade it"):
        RunFolder.open(old, old=True)
