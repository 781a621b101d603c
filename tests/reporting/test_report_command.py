"""`levelhead report` and `levelhead.report` on a run folder made of synthetic files."""

import json
import webbrowser
from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner, Result

import levelhead
from levelhead import cli, runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, RunFolderError
from levelhead.reporting.findings import EXPERIMENTS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    config = RunConfig(model="org/tiny-model", axis=("gender_and_sex",)).resolved()
    runs.write_json(path / runs.CONFIG, {runs.MARK: runs.FORMAT, **config.to_json()})
    runs.write_text(path / runs.SCORES, synthetic.table().to_csv())
    runs.write_json(path / runs.DETAILS, synthetic.details())
    runs.write_json(path / runs.SELECTION, synthetic.selection().to_json())
    runs.write_json(path / runs.EVALUATION, synthetic.evaluation())
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, ["report", *map(str, arguments)])


def test_html_is_the_default_and_its_path_is_printed(run: Path) -> None:
    result = call(run)
    assert (result.exit_code, result.stdout) == (0, f"{run / 'report.html'}\n")
    page = (run / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Heads at a glance" in page
    assert "Methods compared" not in page


def test_each_file_of_an_experiment_is_shown(run: Path) -> None:
    for name, file in EXPERIMENTS.items():
        runs.write_json(run / file, getattr(synthetic, name)())
    text = levelhead.report(run, "md").read_text()
    for title in (
        "Methods compared", "One axis and the others", "choose the same heads", "removed together",
        "Side by side", "paper's measurement", "not selected",
    ):  # fmt: skip
        assert title in text


def test_json_holds_the_files_as_they_are(run: Path) -> None:
    runs.write_json(run / "axes.json", synthetic.axes())
    facts = json.loads(levelhead.report(run, "json").read_text())
    assert facts["levelhead_report"] == 1
    assert facts["evaluation"] == synthetic.evaluation()
    assert facts["axes"] == synthetic.axes()
    assert facts["selection"]["heads"] == [list(head) for head in synthetic.PRUNED]
    assert len(facts["heads"]) == synthetic.LAYERS * synthetic.HEADS
    first = synthetic.table().frame.iloc[0]
    assert facts["heads"][0]["ppl_without"] == first["ppl_without"]
    assert facts["glance"]["critical"]
    assert "compare" not in facts


def test_open_opens_the_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    result = call(run, "--open")
    assert opened == [(run / "report.html").resolve().as_uri()]
    assert result.stderr == ""
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    result = call(run, "--open")
    assert result.exit_code == 0
    assert "found no browser to open; the page is" in result.stderr
    assert call(run, "--open", "--format", "md").exit_code == 2


@pytest.mark.parametrize("given", [("html,html",), ("html", "html")])
def test_plots_are_written_beside_the_report(run: Path, given: tuple[str, ...]) -> None:
    result = call(run, *(word for kind in given for word in ("--plots", kind)))
    assert result.stdout.splitlines() == [str(run / "report.html"), str(run / "plots")]
    names = {path.name for path in (run / "plots").iterdir()}
    assert {"bias-0.html", "ppl.html", "scatter.html", "gaps-0.html"} <= names


def test_what_is_wrong_is_said(run: Path) -> None:
    result = call(run, "--plots", "svg,pdf")
    assert result.exit_code == 2
    assert "'pdf' is none of png, svg, html" in result.stderr
    assert call(run, "--format", "pdf").exit_code == 2
    with pytest.raises(ConfigError, match="'pdf': choose from html, md, json"):
        levelhead.report(run, "pdf")  # type: ignore[arg-type]
    (run / runs.EVALUATION).unlink()
    with pytest.raises(RunFolderError, match="levelhead evaluate"):
        levelhead.report(run)
    runs.write_json(run / "compare" / "compare.json", synthetic.compare())
    assert "Methods compared" in levelhead.report(run).read_text()
