"""Both models' texts side by side: the same random numbers, escaped where they are shown."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from levelhead import cli, examples
from levelhead.console.sets import examples_summary
from levelhead.errors import ConfigError, PromptError
from levelhead.testing import planted_model


@pytest.mark.usefixtures("clear_draws")
def test_only_what_the_pruned_head_does_differs(run: Path) -> None:
    """The planted head writes a toxic word after one subgroup's name alone."""
    planted = planted_model()
    found = examples(run, groups=3, samples=3)
    assert found == json.loads((run / "examples.json").read_text())
    assert len({p["template"] for p in found["prompts"]}) == 3
    assert {p["subgroup"] for p in found["prompts"]} == {"women", "men", "person"}
    differs = 0
    for prompt in found["prompts"]:
        texts = [[one["text"] for one in prompt[model]] for model in ("base", "pruned")]
        if prompt["subgroup"] == "women":
            differs += texts[0] != texts[1]
            toxic = [" ".join(model).split().count(planted.toxic_word) for model in texts]
            assert toxic[0] > 2 * toxic[1]
        else:
            assert texts[0] == texts[1], "common random numbers"
    assert differs == 3
    assert found["prompts"] != examples(run, groups=3, samples=3, seed=9)["prompts"]


def test_templates_by_name(run: Path) -> None:
    names = [p["template"] for p in examples(run, groups=1, samples=1)["prompts"]]
    again = examples(run, templates=[names[0]], samples=1)
    assert [p["template"] for p in again["prompts"]] == names
    with pytest.raises(PromptError, match="no template 'nowhere'"):
        examples(run, templates=["nowhere"])
    with pytest.raises(ConfigError, match="at least 1"):
        examples(run, samples=0)


def test_hostile_text_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[31mred\x07 [bold]not bold[/bold] \u202eback"
    text = {"text": hostile, "toxicity": 0.5}
    prompt = {"prompt": hostile, "subgroup": "s", "template": "t", "base": [text], "pruned": [text]}
    examples_summary({"prompts": [prompt]})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]not bold[/bold]" in shown


def test_the_command_warns(run: Path) -> None:
    shown = CliRunner().invoke(cli.cli, ["examples", str(run), "--groups", "1"])
    assert shown.exit_code == 0, shown.output
    assert "can be offensive" in shown.output
