"""A run folder that somebody sent reads and writes nothing outside of it; results that say so."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.experiments.conftest import finished, inputs, options, run

import levelhead
from levelhead import runs
from levelhead.errors import ConfigError, LevelheadError, RunFolderError
from levelhead.experiments.glance import glance
from levelhead.records import Continuation
from levelhead.reporting.escape import visible
from levelhead.runs import RunFolder

__all__ = ["finished", "inputs", "options", "run"]

READERS = {
    "report": levelhead.report,
    "heads": glance,
    "select": lambda run: levelhead.select(run, alpha=0.06, gamma=0.2, allow_unreliable=True),
    "prune": levelhead.prune,
    "evaluate": levelhead.evaluate,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ["model", "plots", "details.json", "compare", "work/deep"])
def test_a_link_out_of_the_folder_is_refused(
    name: str, read: object, run: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    place = run / name
    if place.is_dir():
        shutil.rmtree(place)
    elif place.exists():
        place.unlink()
    place.parent.mkdir(exist_ok=True)
    if name.endswith("json"):
        outside.write_text('{"secret": 1}')
    else:
        outside.mkdir()
    place.symlink_to(outside)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunFolderError, match=r"is a link to .*outside, outside of the run folder"):
        read(run)  # type: ignore[operator]
    assert sorted(tmp_path.rglob("*")) == before


def test_links_inside_and_a_linked_run_are_fine(run: Path, tmp_path: Path) -> None:
    (run / "elsewhere").mkdir()
    (run / "copy.json").symlink_to("details.json")
    (tmp_path / "link").symlink_to(run)
    assert RunFolder.open(tmp_path / "link").config == RunFolder.open(run).config


def config_of(run: Path, **fields: object) -> None:
    path = run / runs.CONFIG
    shutil.rmtree(run / "work", ignore_errors=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("prompts", ["../../../../etc/passwd", "/etc/passwd", "/dev/zero.csv"])
def test_other_files_named_by_the_config_are_not_shown(prompts: str, run: Path) -> None:
    """They are read only as what they should be; no error quotes a line of another file."""
    config_of(run, prompts=prompts, toxicity=prompts)
    with pytest.raises(LevelheadError) as raised:
        levelhead.evaluate(run, samples=2)
    assert "root:" not in str(raised.value)


@pytest.mark.parametrize(
    "fields", [{"allow_pickle": True}, {"trust_remote_code": True}, {"model": 5}, {"model": "a\0b"}]
)
def test_the_config_grants_nothing(fields: dict[str, object], run: Path) -> None:
    config_of(run, **fields)
    with pytest.raises(ConfigError):
        RunFolder.open(run)


HOSTILE = "../../x\u202e\x1b[2J<script>alert(1)</script>=cmd"


def test_names_of_axes_and_subgroups_are_no_paths(run: Path, tmp_path: Path) -> None:
    """Renamed in every file of the run: reports, plots and pages write inside the folder only."""
    shutil.rmtree(run / "work", ignore_errors=True)
    for name in ("details.json", "evaluation.json", "selection.json", "config.json"):
        text = (run / name).read_text()
        quoted = json.dumps(HOSTILE)[1:-1]
        (run / name).write_text(text.replace('"gender"', f'"{quoted}"'))
    table = (run / "scores.csv").read_text()
    (run / "scores.csv").write_text(table.replace("_gender", f"_{HOSTILE}"), newline="")
    before = {path for path in tmp_path.rglob("*") if run not in path.parents}
    for form in ("html", "md", "json"):
        page = levelhead.report(run, form, plots=("html",)).read_text()
        fenced = re.sub(r"^(`{3,})[^`].*?^\1$", "", page, flags=re.MULTILINE | re.DOTALL)
        assert form == "json" or "<script>alert" not in fenced
        assert "\x1b" not in page
        assert "\u202e" not in page
    assert {path for path in tmp_path.rglob("*") if run not in path.parents} == before
    assert all("\x1b" not in path.name and ".." not in path.name for path in run.rglob("*"))


def test_texts_with_odd_line_ends_are_read_back(tmp_path: Path) -> None:
    """Models write them; a reader that splits lines at U+2028 would lose the file."""
    odd = "one\u2028two\u0085three\u000bfour\u001cfive"
    rows = [
        Continuation(
            prompt_id="a", axis="gender", subgroup="x", split=split, model="base", sample=0,
            seed=0, text=odd, token_ids=(1,), toxicity=0.1,
        )
        for split in ("validation", "test")
    ]  # fmt: skip
    path = tmp_path / "continuations.jsonl"
    runs.write_continuations(path, rows[:1])
    runs.write_continuations(path, rows[1:], keep="validation")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [(line["split"], line["text"]) for line in lines] == [
        ("validation", odd),
        ("test", odd),
    ]
    assert len(path.read_text(encoding="utf-8").splitlines()) > 2  # control
    assert "\u2028" not in visible(odd)
