"""The gate on tiny models of known bias: what grew is flagged, what did not is let through."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.torture.harness import StoppedError

from levelhead import verify
from levelhead.cli import cli
from levelhead.errors import ConfigError, LevelheadError, ModelError, PromptError, RunFolderError
from levelhead.evaluation.results import Beside, Mentions
from levelhead.journal.lock import locked
from levelhead.journal.status import read_status
from levelhead.records import Estimate, Interval
from levelhead.testing import save_tiny_checkpoint, tiny_model, tiny_tokenizer
from levelhead.verification import audit as audit_module
from levelhead.verification.audit import Found
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
    limits = {"max_ppl_increase": 0.0, "max_mean_toxicity_increase": 0.05}
    found = verify(
        inputs / "model", base=inputs / "model", policy=policy | limits, announce=announced.append
    )
    assert found["verdict"] == "passed"
    assert [check["value"] for check in found["checks"]] == pytest.approx([0.0] * 5, abs=ROUNDING)
    on = [check["text"] for check in found["checks"] if check["quantity"] == "perplexity"]
    assert on == [one["text"] for one in found["price"]] == ["text.txt", "literature", "everyday"]
    assert found["perplexity"] == found["price"][0]
    assert announced[0].checks == 5
    assert announced[0].axes == ("gender",)
    assert announced[0].samples == 4
    assert announced[0].power.unchanged >= 0.8
    for check in found["checks"]:
        assert check["errors"] == pytest.approx({"upper": 0.05, "lower": 0.05 / 5})
    assert found["axes"]["gender"]["components"]["shared_noise"] == pytest.approx(1.0)
    assert found["axes"]["gender"]["verdict"] == "not distinguishable"


def test_each_limit_can_fail_a_model_by_itself(
    inputs: Path, without: Path, policy: dict[str, Any]
) -> None:
    loose = policy | {"max_gap_increase": 5.0}
    assert verify(inputs / "model", base=without, policy=loose)["verdict"] == "passed"
    toxic = loose | {"max_mean_toxicity_increase": 0.05}
    found = verify(inputs / "model", base=without, policy=toxic)
    assert [c["quantity"] for c in found["checks"] if c["status"] == "failed"] == ["mean toxicity"]


def test_what_cannot_be_told_fails_unless_the_policy_lets_it_pass(
    inputs: Path, without: Path, policy: dict[str, Any]
) -> None:
    # About as much as the gap grows by: neither within the margin nor clearly above it.
    at = policy | {"max_gap_increase": 1.07}
    found = verify(inputs / "model", base=without, policy=at)
    assert (found["verdict"], found["passes"], found["exit_code"]) == ("cannot tell", False, 3)
    assert "this budget cannot tell" in found["headline"]
    loose = verify(inputs / "model", base=without, policy=at | {"on_inconclusive": "pass"})
    assert (loose["verdict"], loose["passes"], loose["exit_code"]) == ("cannot tell", True, 0)


def test_a_margin_that_the_budget_cannot_resolve_is_refused_before_work(
    inputs: Path, policy: dict[str, Any]
) -> None:
    announced: list[VerifyPlan] = []
    for key in ("max_gap_increase", "max_mean_toxicity_increase"):
        with pytest.raises(ConfigError, match=f"cannot resolve {key} = 0:"):
            verify(
                "no/such/model", base="nor/this", policy=policy | {key: 0.0},
                announce=announced.append,
            )  # fmt: skip
    assert not announced


def test_looks_stop_where_it_is_clear(
    inputs: Path, wrong_head: Path, without: Path, policy: dict[str, Any]
) -> None:
    rest = {key: value for key, value in policy.items() if key != "samples"}
    found = verify(wrong_head, base=inputs / "model", policy=rest | {"looks": [1, 4]})
    assert found["looks"] == {"planned": [1, 4], "taken": [{"samples": 1, "verdict": "passed"}]}
    assert found["axes"]["gender"]["samples"] == 36
    grown = verify(inputs / "model", base=without, policy=rest | {"looks": [1, 4]})
    assert grown["verdict"] == "failed"
    *before, last = grown["looks"]["taken"]
    assert last["verdict"] == "failed"
    assert {one["verdict"] for one in before} <= {"cannot tell"}
    assert grown["axes"]["gender"]["samples"] == 36 * last["samples"]


def test_staged_texts_are_those_of_one_look(
    inputs: Path, wrong_head: Path, without: Path, policy: dict[str, Any]
) -> None:
    """A second look adds to the first: the plain difference is that of all samples at once."""
    at = {"max_gap_increase": 1.07}
    rest = {key: value for key, value in policy.items() if key != "samples"} | at
    whole = verify(inputs / "model", base=without, policy=policy | at)["axes"]["gender"]
    staged = verify(inputs / "model", base=without, policy=rest | {"looks": [1, 4]})
    assert len(staged["looks"]["taken"]) == 2
    for side in ("base", "candidate"):
        assert staged["axes"]["gender"][side]["bias"] == pytest.approx(whole[side]["bias"])


def test_the_masked_reading_is_judged_and_the_plain_one_stands_beside_it(
    grown: dict[str, Any], inputs: Path, without: Path, policy: dict[str, Any]
) -> None:
    axis = grown["axes"]["gender"]
    assert grown["measured_with"]["masked"] is True
    assert {"difference", "adjusted_difference", "echo"} <= set(axis["plain"])
    assert set(axis["own_group_mentions"]) >= {"base", "pruned", "difference"}
    plain = verify(inputs / "model", base=without, policy=policy | {"unmasked": True})
    assert plain["measured_with"]["masked"] is False
    assert plain["axes"]["gender"]["plain"] is None


def test_the_audit_says_what_was_measured_and_its_digest_fits(grown: dict[str, Any]) -> None:
    assert grown["levelhead_audit"] == 2
    assert grown["power"]["unchanged_passes"] >= 0.8
    assert grown["exit_code"] == 1
    axis = grown["axes"]["gender"]
    assert axis["subgroups"] == ["men", "person", "women"]
    assert axis["prompts"] == 36
    assert len(axis["prompts_sha256"]) == 64
    assert axis["candidate"]["bias"] > axis["base"]["bias"]
    assert grown["measured_with"]["split"] == "test"
    scorer = grown["measured_with"]["scorer"]
    assert scorer.startswith("masked:")
    assert ":profanity-check:" in scorer
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


def test_an_internal_failure_is_not_told_as_a_broken_limit(
    inputs: Path, policy: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(error: BaseException) -> Result:
        def broken(*args: Any, **options: Any) -> Any:
            raise error

        monkeypatch.setattr("levelhead.pipeline.verify", broken)
        return CliRunner().invoke(cli, ["verify", str(inputs / "model")])

    for error in (RuntimeError("luck"), LevelheadError("not the user's mistake"), MemoryError()):
        found = ended(error)
        assert found.exit_code == 70
        assert "nothing was judged" in found.output
    mistake = ConfigError("a mistake")
    assert ended(mistake).exception is mistake, "left to `main`, which ends with its exit code"
    assert "nothing was judged" not in ended(KeyboardInterrupt()).output


def test_a_fall_of_own_group_mentions_and_a_wide_margin_are_warned_of() -> None:
    def beside(base: float, other: float) -> Beside:
        values = (base, other, other - base)
        given = [Estimate(value=x, interval=Interval(x - 0.01, x + 0.01)) for x in values]
        return Beside(base=given[0], pruned=given[1], difference=given[2])

    fell = Mentions(
        every=beside(0.2, 0.1), by_subgroup={"queer": beside(0.2, 0.02)}, fell=("all", "queer")
    )
    axes: Any = {
        "gender": SimpleNamespace(mentions=fell, corrected_bias=0.2),
        "age": SimpleNamespace(mentions=None, corrected_bias=-0.01),
    }
    found = Found(checks=(), axes=axes, planned=(4,), looks=())
    (warning,) = found.erasure
    assert warning.startswith("gender: The candidate names the prompt's own group less often")
    assert "queer 20% to 2%" in warning
    (wide,) = found.wide_margins(0.05)
    assert "(age 0.0000)" in wide
    assert found.wide_margins(-0.1) == []
