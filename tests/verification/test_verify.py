"""The gate on tiny models of known bias: what grew is flagged, what did not is let through."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.torture.harness import StoppedError

from levelhead import verify
from levelhead.cli import cli
from levelhead.errors import ConfigError, ModelError, PromptError, RunFolderError
from levelhead.journal.lock import locked
from levelhead.journal.status import read_status
from levelhead.testing import save_tiny_checkpoint, tiny_model, tiny_tokenizer
from levelhead.verification import audit as audit_module
from levelhead.verification.decision import ROUNDING
from levelhead.verification.gate import VerifyPlan


@pytest.fixture(scope="module")
def grown(inputs: Path, without: Path, policy: dict[str, Any]) -> dict[str, Any]:
    """Bias planted upwards: the base lacks the biased head, the candidate has it."""
    return verify(inputs / "model", base=without, policy=policy)


def test_a_model_whose_bias_was_planted_upwards_fails(grown: dict[str, Any]) -> None:
    assert grown["verdict"] == "failed"
    assert grown["passes"] is False
    (check,) = grown["checks"]
    assert (check["quantity"], check["axis"], check["status"]) == ("gap", "gender", "failed")
    assert check["interval"][0] > 0
    assert "rose by more than the policy allows" in grown["headline"]


def test_the_other_way_round_passes(inputs: Path, without: Path, policy: dict[str, Any]) -> None:
    """Control: the same two models, base and candidate exchanged."""
    found = verify(without, base=inputs / "model", policy=policy)
    assert found["verdict"] == "passed"
    assert found["checks"][0]["interval"][1] < 0


def test_an_identical_model_passes_with_a_difference_of_zero(
    inputs: Path, policy: dict[str, Any]
) -> None:
    announced: list[VerifyPlan] = []
    limits = {"max_ppl_increase": 0.0, "max_mean_toxicity_increase": 0.0}
    found = verify(
        inputs / "model", base=inputs / "model", policy=policy | limits, announce=announced.append
    )
    assert found["verdict"] == "passed"
    assert [check["value"] for check in found["checks"]] == pytest.approx([0.0] * 3, abs=ROUNDING)
    assert announced[0].checks == 3
    assert announced[0].axes == ("gender",)
    level = found["error_rate"]["level_of_each_interval"]
    assert level == pytest.approx(1 - 2 * 0.05 / 3)
    assert {check["level"] for check in found["checks"]} == {level}


def test_each_limit_can_fail_a_model_by_itself(
    inputs: Path, without: Path, policy: dict[str, Any]
) -> None:
    loose = policy | {"max_gap_increase": 5.0}
    assert verify(inputs / "model", base=without, policy=loose)["verdict"] == "passed"
    toxic = loose | {"max_mean_toxicity_increase": 0.001}
    found = verify(inputs / "model", base=without, policy=toxic)
    assert [c["quantity"] for c in found["checks"] if c["status"] == "failed"] == ["mean toxicity"]


def test_too_small_a_budget_is_told_apart_and_handled_as_the_policy_says(
    inputs: Path, wrong_head: Path, policy: dict[str, Any]
) -> None:
    few = policy | {"samples": 1, "max_prompts": 12, "max_gap_increase": 0.0}
    found = verify(wrong_head, base=inputs / "model", policy=few)
    assert found["verdict"] == "cannot tell"
    assert found["passes"] is True
    assert "this budget cannot tell" in found["headline"]
    strict = verify(wrong_head, base=inputs / "model", policy=few | {"on_inconclusive": "fail"})
    assert (strict["verdict"], strict["passes"]) == ("cannot tell", False)


def test_the_audit_says_what_was_measured_and_its_digest_fits(grown: dict[str, Any]) -> None:
    assert grown["levelhead_audit"] == 1
    axis = grown["axes"]["gender"]
    assert axis["subgroups"] == ["men", "person", "women"]
    assert axis["prompts"] == 36
    assert len(axis["prompts_sha256"]) == 64
    assert axis["candidate"]["bias"] > axis["base"]["bias"]
    assert grown["measured_with"]["split"] == "test"
    assert grown["measured_with"]["scorer"].startswith("profanity-check:")
    sources = {one["source"] for one in grown["documentation"]["pointers"]}
    assert sources == {"EU AI Act, Regulation (EU) 2024/1689", "NIST AI RMF 1.0"}
    assert "No statement of compliance" in grown["documentation"]["note"]
    assert grown["digest"] == audit_module.digest(grown)
    assert grown["digest"] != audit_module.digest(grown | {"verdict": "passed"})
    assert json.loads(json.dumps(grown, allow_nan=False)) == grown


def test_another_vocabulary_is_refused(
    inputs: Path, policy: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tokenizer = tiny_tokenizer(["sesame"])
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(ModelError, match="another vocabulary"):
        verify(other, base=inputs / "model", policy=policy)


def test_a_model_that_names_no_base_needs_one(
    without: Path, policy: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--base"):
        verify(save_tiny_checkpoint(tmp_path / "m", "llama"), policy=policy)


def test_an_unknown_axis_is_refused_before_work(inputs: Path, policy: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="unknown axis 'age'"):
        verify(inputs / "model", base=inputs / "model", policy=policy | {"axes": ["age"]})


def test_the_command_is_a_gate(
    inputs: Path, without: Path, policy: dict[str, Any], tmp_path: Path
) -> None:
    file, out = tmp_path / "policy.toml", tmp_path / "audit.json"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in policy.items()))
    command = ["verify", str(inputs / "model"), "--policy", str(file), "--out", str(out)]
    failed = CliRunner().invoke(cli, [*command, "--base", str(without)])
    assert failed.exit_code == 1, failed.output
    assert "FAILED" in failed.output
    assert json.loads(out.read_text())["verdict"] == "failed"
    passed = CliRunner().invoke(cli, [*command, "--base", str(inputs / "model"), "--json"])
    assert passed.exit_code == 0, passed.output
    assert json.loads(passed.stdout)["verdict"] == "passed"
    file.write_text("max_gap_growth = 0.1\n")
    mistake = CliRunner().invoke(cli, command)
    assert isinstance(mistake.exception, ConfigError)
    assert mistake.exception.exit_code == 2
    assert "unknown key 'max_gap_growth'" in str(mistake.exception)


def test_an_interrupted_gate_goes_on_from_what_it_measured(
    inputs: Path, grown: dict[str, Any], without: Path, policy: dict[str, Any], tmp_path: Path
) -> None:
    out, kept = tmp_path / "audit.json", tmp_path / "audit.json.unfinished"
    advances = []

    @contextmanager
    def stopping(description: str, total: int) -> Iterator[Any]:
        def advance(units: int) -> None:
            advances.append(units)
            if len(advances) == 2:
                raise StoppedError

        yield advance

    with pytest.raises(StoppedError):
        verify(inputs / "model", base=without, policy=policy, out=out, progress=stopping)
    assert not out.exists()
    assert read_status(kept)["stages"]["verify"]["kept"] >= 1
    found = verify(inputs / "model", base=without, policy=policy, out=out)
    assert found["checks"] == grown["checks"]
    assert found["axes"] == grown["axes"]
    assert json.loads(out.read_text())["checks"] == found["checks"]
    assert not kept.exists()


def test_two_gates_do_not_write_one_audit(
    inputs: Path, without: Path, policy: dict[str, Any], tmp_path: Path
) -> None:
    with (
        locked(tmp_path / "audit.json.unfinished" / "work"),
        pytest.raises(RunFolderError, match="another process"),
    ):
        verify(inputs / "model", base=without, policy=policy, out=tmp_path / "audit.json")
