"""The card says what a run measured, escapes what comes from outside, holds no generated text."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from levelhead import runs
from levelhead.errors import RunFolderError
from levelhead.runs import RunFolder
from levelhead.sharing.model_card import code, md, model_card
from levelhead.sharing.run_card import base_licence, card_of_selection, write_card

SELECTION: dict[str, Any] = {
    "method": "fasp",
    "gamma": 0.3,
    "alpha": 0.1,
    "heads": [[0, 1], [2, 3]],
}


def _number(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value - 0.01, value + 0.01]}


def _side(bias: float, group: str) -> dict[str, Any]:
    return {
        "bias": bias, "bias_corrected": bias, "ci95": [0.0, bias + 0.1], "mean_toxicity": 0.25,
        "prompt_floor": 0.0, "gaps": {group: _number(bias / 2)},
    }  # fmt: skip


def evaluation(axis: str = "gender", group: str = "women") -> dict[str, Any]:
    return {
        "scorer": "profanity-check:1", "toxicity_input": "continuation", "heads": [[0, 1], [2, 3]],
        "axes": {axis: {
            "base": _side(0.2, group), "pruned": _side(0.1, group),
            "difference": _number(-0.1), "adjusted_difference": _number(-0.09),
            "expected_difference": _number(-0.08), "toxicity_difference": _number(-0.02),
            "prompts": 40, "samples": 80, "templates": 12, "verdict": "lower",
        }},
        "perplexity": {"base": 10.0, "pruned": 12.5, "text": "pydoc", "tokens": 512,
                       "increase": _number(0.25)},
        "parameters": {"base": 1000, "pruned": 900}, "warnings": ["perplexity is up by 25.0%"],
        "examples": [{"prompt": "THE PROMPT", "base": "RUDE TEXT", "pruned": "MORE TEXT"}],
        "headline": "a headline",
    }  # fmt: skip


def card(**changes: Any) -> str:
    given: dict[str, Any] = {
        "evaluation": evaluation(), "selection": SELECTION, "config": {"prompts": "builtin"},
        "details": {"versions": {"torch": "2"}}, "base_name": "someone/base", "revision": "abc",
    }  # fmt: skip
    return model_card(**given | changes)


def test_it_says_what_was_removed_and_measured() -> None:
    read = ModelCard(card(licence="Apache-2.0", digests={"model.safetensors": "f00d"}))
    assert read.data.base_model == "someone/base"
    assert read.data.license == "apache-2.0"
    for said in (
        "revision `abc`", "2 attention heads in 2 layers", "0.2000 \\[0.0000, 0.3000\\]",
        "-0.0900 \\[-0.1000, -0.0800\\]", "+0.1000 \\[+0.0900, +0.1100\\]", "profanity-check:1",
        "10.00 before, 12.50 after (+25.0% [+24.0%, +26.0%])", "| alpha (share pruned) | 0.1 |",
        "- 2: 3", "`f00d`", "perplexity is up by 25.0%", "40 prompts, 80 continuations",
    ):  # fmt: skip
        assert said in read.text, said
    assert "levelhead.load" in read.text
    assert 'AutoModelForCausalLM.from_pretrained("THIS_MODEL")' in card(form="zeroed")
    assert "trust_remote_code=True" in card(form="remote-code")


BOTH_READINGS: dict[str, Any] = {
    "masked": True,
    "plain": {
        "base": _side(0.5, "women"), "pruned": _side(0.15, "women"),
        "difference": _number(-0.35), "adjusted_difference": _number(-0.34),
    },
    "echo": {"base": _number(0.3), "pruned": _number(0.05), "difference": _number(-0.25)},
    "own_group_mentions": {
        "base": _number(0.2), "pruned": _number(0.05), "difference": _number(-0.15),
        "fell": ["all", "women"],
    },
    "second_scorer": {"name": "other"} | {"adjusted_difference": _number(0.04)},
    "common_factor": {"factor": 0.6, "beyond": _number(-0.03)},
}  # fmt: skip


def test_it_has_both_readings_echo_mentions_and_the_second_scorer() -> None:
    found = evaluation()
    found["axes"]["gender"] |= BOTH_READINGS
    text = card(evaluation=found)
    decides = "| **Noise-adjusted difference (decides the verdict)** |  |  | "
    assert decides + "-0.0900 \\[-0.1000, -0.0800\\] |" in text
    for said in (
        "noise-adjusted difference |  |  | -0.3400 \\[-0.3500, -0.3300\\] |",
        "(plain minus masked) | 0.3000 \\[0.2900, 0.3100\\] | 0.0500 ",
        "own group | 20% \\[19%, 21%\\] | 5% \\[4%, 6%\\] | -15 points \\[-16, -14\\] |",
        "Second scorer (other): noise-adjusted difference |  |  | 0.0400",
        "The scorers disagree about the direction (other).",
        "names the prompt's own group less often (women). A group that is no longer named",
        "identity words masked. Verdict on these prompts: lower. Lower: pruning reduces",
        "| Measured bias, as sampled | 0.2000 | 0.1000 | -0.1000",
        "| Difference of bias beyond the common factor, noise-adjusted |  |  | -0.0300",
    ):
        assert said in text, said
    sampled = [line for line in text.splitlines() if line.startswith("|") and "sampled" in line]
    assert sampled
    assert not any("**" in line for line in sampled)


def test_a_card_of_an_older_evaluation_says_nothing_of_what_it_lacks() -> None:
    text = card()
    for absent in ("Plain reading", "Echo", "Second scorer", "own group", "None", "masked"):
        assert absent not in text


def test_it_holds_no_generated_text_no_prompt_and_no_path(tmp_path: Path) -> None:
    local = tmp_path / "home" / "my-model"
    local.mkdir(parents=True)
    text = card(base_name=str(local), config={"prompts": str(tmp_path / "prompts.csv")})
    for hidden in ("RUDE TEXT", "MORE TEXT", "THE PROMPT", str(tmp_path), "home"):
        assert hidden not in text
    assert "my-model" in text
    assert "prompts.csv prompts" in text
    assert ModelCard(text).data.base_model is None


def test_wording_is_modest() -> None:
    text = card().lower()
    for claim in ("debias", "unbiased", "is fair", "solves", "bias-free"):
        assert claim not in text


def test_without_an_evaluation_it_says_that_nothing_was_measured() -> None:
    text = card_of_selection(SELECTION, "someone/base", None, "compact")
    assert "Nothing yet" in text
    assert "before" not in text.partition("## How the heads")[0].replace("written before", "")
    assert "see base model" in text


def test_unknown_licences_stay_what_they_are() -> None:
    data = ModelCard(card(licence="My Own: #1 licence")).data
    assert (data.license, data.license_name) == ("other", "My Own: #1 licence")


@pytest.mark.parametrize(
    ("nasty", "shown"),
    [
        ("a|b", r"a\|b"),
        ("[x](http://evil)", r"\[x\](http\://evil)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("# top", r"\# top"),
        ("two\nlines", r"two\\nlines"),
        ("\u202ereversed", r"\\u202ereversed"),
    ],
)
def test_text_from_outside_is_shown_not_obeyed(nasty: str, shown: str) -> None:
    assert md(nasty) == shown
    text = card(evaluation=evaluation(axis=nasty, group=nasty), base_name=f"{nasty}: x/y/z")
    plain = card(evaluation=evaluation(), base_name="y/z")
    assert len(text.splitlines()) == len(plain.splitlines()) - 1  # no base_model in the head
    assert shown in text
    assert ModelCard(text).data.library_name == "transformers"


@given(st.text())
def test_escaped_text_stays_on_its_line_and_in_its_cell(text: str) -> None:
    for made in (md(text), code(text)):
        assert "\n" not in made
        assert len(made.splitlines()) <= 1
    assert md(text).count("|") == md(text).count(r"\|")


def test_the_card_of_a_run(run: Path) -> None:
    path = write_card(RunFolder.open(run))
    measured = path.read_text()
    assert path == run / "model" / "README.md"
    held = json.loads((run / "evaluation.json").read_text())
    assert f"{held['axes']['gender']['base']['bias']:.4f}" in measured
    for example in held["examples"]:
        assert example["pruned"] not in measured or not example["pruned"].strip()
    # An evaluation of other heads is not this model's.
    other = copy.deepcopy(held)
    other["heads"] = [[0, 0]]
    runs.write_text(run / "evaluation.json", json.dumps(other))
    assert "Nothing yet" in write_card(RunFolder.open(run)).read_text()


def test_no_card_for_a_model_without_other_heads_than_selected(run: Path) -> None:
    selection = json.loads((run / "selection.json").read_text())
    layer, head = selection["heads"][0]
    selection["heads"][0] = [layer, (head + 1) % 6]
    runs.write_text(run / "selection.json", json.dumps(selection))
    with pytest.raises(RunFolderError, match="lacks other heads"):
        write_card(RunFolder.open(run))


def test_the_licence_of_a_base_model(tmp_path: Path) -> None:
    assert base_licence(str(tmp_path)) is None
    assert base_licence("no/such-model-here") is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert base_licence(str(tmp_path)) == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: gemma\n---\n")
    assert base_licence(str(tmp_path)) == "gemma"
    (tmp_path / "README.md").write_text("---\n- a list\n---\n")
    assert base_licence(str(tmp_path)) is None
