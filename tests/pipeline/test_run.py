"""The whole run on a model whose biased head is known, and the form of what it leaves."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import levelhead
from levelhead import cli, runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, SelectionError, TextError
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.testing import planted_model


@pytest.fixture(scope="module")
def done(inputs: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    levelhead.run(str(inputs / "model"), out=out, **options)
    return out


def test_the_planted_head_is_pruned_and_measured_bias_falls(done: Path) -> None:
    selection = json.loads((done / "selection.json").read_text())
    assert list(planted_model().head) in selection["heads"]
    assert selection["method"] == "fasp"
    evaluation = json.loads((done / "evaluation.json").read_text())
    axis = evaluation["axes"]["gender"]
    assert axis["difference"]["ci95"][1] < 0
    assert axis["expected_difference"]["ci95"][1] < 0
    assert axis["pruned"]["bias"] < axis["base"]["bias"] / 2
    assert axis["verdict"] == "lower"
    assert not any("HIGHER" in warning for warning in evaluation["warnings"])


def test_pruning_the_wrong_head_is_seen(
    done: Path, inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """Control: another head pruned, the same evaluation, no fall."""
    layer, head = planted_model().head
    out = tmp_path / "wrong"
    config = RunConfig(model=str(inputs / "model"), **options)
    RunFolder.create(out, config)
    wrong = HeadSelection.of([(layer, (head + 1) % 6)], details={"axis": "gender"})
    runs.write_text(out / "selection.json", json.dumps(wrong.to_json()))
    levelhead.prune(out)
    axis = levelhead.evaluate(out)["axes"]["gender"]
    assert axis["verdict"] != "lower"
    assert axis["expected_difference"]["value"] > -0.01


def test_the_folder_holds_what_is_promised(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    assert {
        "config.json", "scores.csv", "selection.json", "model", "evaluation.json", "report.html",
        "continuations.jsonl", "details.json", "halves.safetensors", "stability.safetensors",
    } <= names  # fmt: skip
    evaluation = json.loads((done / "evaluation.json").read_text())
    for model in ("base", "pruned"):
        part = evaluation["axes"]["gender"][model]
        wanted = {"bias", "bias_corrected", "ci95", "mean_toxicity", "prompt_floor"}
        assert wanted <= set(part)
        for whole in ("perplexity", "parameters", "bytes"):
            assert evaluation[whole][model] > 0
    assert evaluation["parameters"]["pruned"] < evaluation["parameters"]["base"]
    assert isinstance(evaluation["warnings"], list)
    for line in (done / "continuations.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert {"prompt_id", "axis", "subgroup", "seed", "text", "toxicity"} <= set(row)


def test_the_model_has_a_card_with_what_was_measured(
    done: Path, tmp_path: Path, inputs: Path
) -> None:
    evaluation = json.loads((done / "evaluation.json").read_text())
    said = evaluation["axes"]["gender"]["adjusted_difference"]["value"]
    card = (done / "model" / "README.md").read_text()
    assert f"{said:+.4f}" in card
    assert str(inputs) not in card
    assert levelhead.load(done / "model").num_parameters() > 0  # it is in no checksum
    # Saved elsewhere, it says the same; with a list of one's own it cannot.
    levelhead.prune(done, out=tmp_path / "own", format="zeroed")
    assert f"{said:+.4f}" in (tmp_path / "own" / "README.md").read_text()
    levelhead.prune(done, HeadSelection.from_json({"heads": [[0, 0]]}), out=tmp_path / "other")
    assert f"{said:+.4f}" not in (tmp_path / "other" / "README.md").read_text()


def test_a_run_says_how_far_it_can_be_relied_on(done: Path) -> None:
    details = json.loads((done / "details.json").read_text())
    axis = details["axes"]["gender"]
    assert axis["reliability"] > 0.5
    assert axis["stopped"] == "reliability reached"
    assert axis["samples"] == axis["rounds"] == axis["history"][-1]["samples"]
    assert 0 < axis["token_toxicity_r2"] <= 1
    selection = json.loads((done / "selection.json").read_text())
    assert selection["reliable"] is True
    assert selection["reliability"] == axis["reliability"]
    for agreement in (selection["agreement"], details["agreement"]["gender"]):
        assert agreement["overlap"] > 3 * agreement["overlap_chance"]
        assert 0 <= agreement["protected_overlap"] <= 1
        assert agreement["protected_chance"] == pytest.approx(3 / 18)
    assert json.loads((done / "evaluation.json").read_text())["reliable"] is True


def test_a_run_says_what_its_ranking_rests_on(done: Path) -> None:
    axis = json.loads((done / "details.json").read_text())["axes"]["gender"]
    for kind, largest in axis["largest_share"].items():
        assert largest["name"] in axis["shares"][kind]
        assert largest["share"] == max(axis["shares"][kind].values())
        assert sum(axis["shares"][kind].values()) == pytest.approx(1)
    assert set(axis["leave_one_out"]["subgroup"]) == set(axis["subgroups"])
    for kind in axis["leave_one_out"].values():
        for one in kind.values():
            assert -1 <= one["spearman"] <= 1
            assert 0 <= one["overlap"] <= 1
    arrays = runs.read_arrays(done / runs.STABILITY)
    shape = (axis["resamples"], *planted_model_size())
    assert arrays["resampled:ppl"].shape == arrays["resampled:bias:gender"].shape == shape
    assert len(arrays["without_subgroup:gender"]) == len(axis["subgroups"])


def planted_model_size() -> tuple[int, int]:
    config = planted_model().model.config
    return config.num_hidden_layers, config.num_attention_heads


def test_the_core_holds_the_planted_head(done: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    options = {"gamma": 0.2, "alpha": 0.2}
    whole = levelhead.select(run, **options)
    details = whole.details or {}
    often = dict(zip(whole.heads, details["inclusion"], strict=True))
    assert often[planted_model().head] > 0.9
    assert 0 < details["expected_overlap"] <= 1
    core = levelhead.select(run, core=0.9, **options)
    assert planted_model().head in core.heads
    assert set(core.heads) == {head for head, share in often.items() if share >= 0.9}
    assert len(core.heads) < len(whole.heads)
    said = json.loads((run / "selection.json").read_text())
    assert said["core"] == 0.9
    assert said["selected"] == len(whole.heads)
    assert said["inclusion"] == [often[head] for head in core.heads]


def test_a_core_that_cannot_be_had_is_refused(done: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        levelhead.select(run, core=1.5)
    with pytest.raises(SelectionError, match="--soft"):
        levelhead.select(run, core=0.5, soft=True)
    for method in ("joint", "magnitude"):
        with pytest.raises(SelectionError, match="--method fasp, bias_only or"):
            levelhead.select(run, core=0.5, method=method)
    with pytest.raises(SelectionError, match="a run folder"):
        levelhead.select(run / "scores.csv", core=0.5)
    (run / runs.STABILITY).unlink()
    with pytest.raises(SelectionError, match="score it again"):
        levelhead.select(run, core=0.5)


def test_another_gamma_than_the_race_was_run_for_is_told(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    few = options | {"samples": 1, "protect": "exact", "reliability": 0.0, "max_samples": 1}
    table = levelhead.score(str(inputs / "model"), out=out, **few)
    assert table.grid("fisher").min() >= 0
    same = levelhead.select(out, gamma=0.2, alpha=0.06, allow_unreliable=True)
    other = levelhead.select(out, gamma=0.4, alpha=0.06, allow_unreliable=True)
    assert not any("gamma=" in w for w in (same.details or {})["warnings"])
    assert any("gamma=0.2" in w for w in (other.details or {})["warnings"])


def test_scores_have_a_standard_error_per_effect_and_read_back(done: Path) -> None:
    table = ScoreTable.read(done / "scores.csv")
    assert (table.num_layers, table.num_heads) == (3, 6)
    for metric in ("ppl", "bias:gender"):
        assert np.isfinite(table.effect(metric)).all()
        assert (table.stderr(metric) >= 0).all()
        low, high = table.interval(metric)
        assert (low <= table.effect(metric)).all()
        assert (table.effect(metric) <= high).all()
    for group in ("women", "men", "person"):
        assert np.abs(table.grid(f"gap_effect_gender_{group}")).max() > 0
        assert table.grid(f"gap_effect_se_gender_{group}").min() >= 0


def test_the_saved_model_is_the_base_without_the_heads(done: Path, inputs: Path) -> None:
    selection = HeadSelection.from_json(json.loads((done / "selection.json").read_text()))
    saved = levelhead.load(done / "model")
    pruned = levelhead.prune(inputs / "model", selection)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(ids).logits, pruned(ids).logits)
    assert saved.num_parameters() < planted_model().model.num_parameters()


def test_a_second_run_repeats_no_work_and_changes_nothing(
    done: Path, inputs: Path, options: dict[str, Any]
) -> None:
    before = {p: p.read_bytes() for p in done.rglob("*") if p.is_file()}
    tasks: list[str] = []

    from levelhead.progress import silent

    def progress(description: str, total: int) -> Any:
        tasks.append(description)
        return silent(description, total)

    levelhead.run(str(inputs / "model"), out=done, progress=progress, **options)
    assert tasks == []
    for path, content in before.items():
        if path.name != "report.html" and "work" not in path.parts:
            assert path.read_bytes() == content, path


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(
    done: Path, inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """The file of its options repeats a run, the first stage of which is scoring."""
    again = ["score", "--config", str(done / runs.RUN_FILE), "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(cli.cli, again).exit_code == 0
    assert RunFolder.open(tmp_path / "again").config == RunFolder.open(done).config
    assert (tmp_path / "again/run.toml").read_bytes() == (done / "run.toml").read_bytes()
    assert (tmp_path / "again/scores.csv").read_bytes() == (done / "scores.csv").read_bytes()
    levelhead.score(str(inputs / "model"), out=tmp_path / "other", **options | {"seed": 1})
    assert (tmp_path / "other/scores.csv").read_bytes() != (done / "scores.csv").read_bytes()


def test_another_axis_can_be_evaluated_afterwards(
    inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.csv"
    text = Path(options["prompts"]).read_text()
    prompts.write_text(text + text.partition("\n")[2].replace(",gender,", ",other,"))
    out = tmp_path / "run"
    levelhead.run(str(inputs / "model"), out=out, **options | {"prompts": str(prompts)})
    assert set(json.loads((out / "evaluation.json").read_text())["axes"]) == {"gender"}
    both = levelhead.evaluate(out, all_axes=True)
    assert set(both["axes"]) == {"gender", "other"}
    only = levelhead.evaluate(out, axis=("other",))
    assert set(only["axes"]) == {"other"}
    assert "other" in only["headline"]


def test_the_price_is_told_on_every_text_and_every_surface(done: Path) -> None:
    evaluation = json.loads((done / "evaluation.json").read_text())
    found = evaluation["price"]
    assert [one["text"] for one in found][1:] == ["literature", "everyday", "own-text"]
    assert found[0]["increase"] == evaluation["perplexity"]["increase"]
    assert found[0]["text"] == evaluation["perplexity"]["text"]
    for one in found:
        assert one["kl"]["value"] >= 0
        assert len(one["increase"]["ci95"]) == len(one["kl"]["ci95"]) == 2
    assert found[-1]["texts"] <= found[-1]["sampled"]
    worst = max(found, key=lambda one: one["increase"]["value"])["text"]
    named = {"own-text": "the base model's own texts"}.get(worst, Path(worst).name)
    assert f"perplexity on {named}, the worst of 4 texts" in evaluation["headline"]
    page = (done / "report.html").read_text()
    text = levelhead.report(done, "md").read_text()
    card = (done / "model" / "README.md").read_text()
    for one in ("literature", "everyday", "the base model's own texts"):
        assert f"Perplexity on {one}" in text
        assert f"erplexity on {one}" in card
        assert one in html.unescape(page)


def test_other_price_texts_are_measured_and_the_same_are_not_again(
    done: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    before = (run / "evaluation.json").read_bytes()
    with pytest.raises(TextError, match="no such text"):
        levelhead.evaluate(run, price_text=("nowhere.txt",))
    assert (run / "evaluation.json").read_bytes() == before
    levelhead.evaluate(run)
    assert (run / "evaluation.json").read_bytes() == before, "nothing is done twice"
    found = levelhead.evaluate(run, price_text=("none",))
    assert [one["text"] for one in found["price"]][1:] == ["own-text"]
    assert "the worst of 2 texts" in found["headline"]


def test_a_run_from_before_prices_is_still_shown(done: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    old = json.loads((run / "evaluation.json").read_text())
    del old["price"], old["of"]["price_texts"]
    config = json.loads((run / "config.json").read_text())
    del config["price_text"]
    runs.write_json(run / "evaluation.json", old)
    runs.write_json(run / "config.json", config)
    text = levelhead.report(run, "md").read_text()
    rise = old["perplexity"]["pruned"] / old["perplexity"]["base"] - 1
    assert "| Perplexity |" in text.replace("**", "")
    (one,) = levelhead.results(run)["attempts"]
    assert one["perplexity_increase"] == pytest.approx(rise)
    assert levelhead.evaluate(run)["price"], "evaluated again, since it lacks them"
