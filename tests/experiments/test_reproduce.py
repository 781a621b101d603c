"""The authors' protocol end to end on a tiny model, foretold and refused where it is too long."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.pipeline.conftest import inputs

from levelhead import cli, reproduce
from levelhead.config import PAPER, RunConfig
from levelhead.errors import ConfigError
from levelhead.experiments.reproduce import PUBLISHED, foretell, published_name
from levelhead.session import Session

pytestmark = pytest.mark.slow
"""Studies of finished runs: continuous integration runs them."""

__all__ = ["inputs"]  # the strong head: without it hardly any of the gap is left


@pytest.fixture
def small(options: dict[str, Any]) -> dict[str, Any]:
    """The tiny run's inputs, and nothing that the protocol sets."""
    kept = ("axis", "prompts", "text", "toxicity")
    return {name: options[name] for name in kept} | {"new_tokens": 4, "max_prompts": 18}


def test_the_protocol_sets_what_is_not_given(small: dict[str, Any]) -> None:
    config = RunConfig.of("m", **small, protocol="paper")
    for name, value in PAPER.items():
        assert getattr(config, name) == (4 if name == "new_tokens" else value)
    assert RunConfig.of("m", **small).estimator == "token-gradient", "control: only on request"
    assert config.fingerprint() != RunConfig.of("m", **small).fingerprint()
    again = RunConfig.from_json(config.to_json())
    assert again == config


def test_a_row_with_an_interval_and_all_that_differs(
    inputs: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    long = inputs / "text.txt"
    given = small | {"text": str(long), "text_tokens": 1500, "estimator": "token-gradient"}
    found = reproduce(str(inputs / "model"), out=tmp_path / "run", **given)
    assert found == json.loads((tmp_path / "run" / "reproduce.json").read_text())
    low, high = found["reduction"]["ci95"]
    assert low <= found["reduction"]["value"] <= high
    assert found["reduction"]["value"] > 0.5, "the planted head carries nearly all of the gap"
    assert found["published"] is None
    said = " ".join(found["differs"])
    for words in ("none of the paper's six", "estimator is 'token-gradient'", "HolisticBias"):
        assert words in said
    assert "samples is" not in said, "what is as in the paper is not listed"
    assert found["hours"] < 0.2


def test_naive_ablation_is_foretold_to_take_longer_and_refused(
    inputs: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing is written, and the cheaper estimator of the same run is not refused."""
    model = str(inputs / "model")
    with pytest.raises(ConfigError, match=r"more than --max-hours 1e-05.*token-gradient"):
        reproduce(model, out=tmp_path / "run", max_hours=1e-5, **small)
    assert not (tmp_path / "run").exists()
    common = small | {"protocol": "paper", "text_tokens": 256, "samples": 40}
    naive = foretell(Session(RunConfig.of(model, **common)))
    cheap = foretell(Session(RunConfig.of(model, estimator="token-gradient", **common)))
    assert 1.1 < naive.scoring_hours / cheap.scoring_hours < 4, "19 models against the cost of 10"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("distilbert/distilgpt2", "distilgpt2"),
        ("EleutherAI/gpt-neo-125M", "gpt-neo-125m"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b-chat-hf"),
        ("/models/gpt2", "gpt2"),
        ("gpt2-medium", None),
    ],
)
def test_the_papers_models_are_known_by_name(model: str, name: str | None) -> None:
    assert published_name(model) == name
    assert name is None or name in PUBLISHED


def test_the_command(inputs: Path, small: dict[str, Any], tmp_path: Path) -> None:
    flags = [w for k, v in small.items() for w in
             (f"--{k.replace('_', '-')}", str(v[0] if k == "axis" else v))]  # fmt: skip
    words = ["reproduce", str(inputs / "model"), "--out", str(tmp_path / "run"), *flags]
    words += ["--estimator", "token-gradient", "--text-tokens", "1500"]
    shown = CliRunner().invoke(cli.cli, words)
    assert shown.exit_code == 0, shown.output
    assert "Not as in the paper" in shown.output
    assert "hours on this machine" in shown.output
