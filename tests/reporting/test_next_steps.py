"""The commands that would improve a result, with its own numbers and paths."""

import shlex
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from levelhead.cli import cli
from levelhead.reporting import sections
from levelhead.reporting.markdown import render_markdown
from levelhead.reporting.next_steps import MOST, next_steps

RUN = "runs/my first"


def steps(evaluation: Any = None, selection: Any = None, **axis: Any) -> list[str]:
    found = synthetic.evaluation() if evaluation is None else evaluation
    name = next(iter(found["axes"]))
    found["axes"][name] |= axis
    chosen = {"axis": name, "reliable": True} | (selection or {})
    config = {"model": "gpt2", "max_ppl_increase": 0.05}
    return [one.command for one in next_steps(RUN, found, {}, chosen, config)]


def cheap() -> Any:
    """An evaluation whose price keeps the budget."""
    found = synthetic.evaluation()
    found["price"] = [{"text": "pydoc", "base": 10.0, "pruned": 10.2}]
    return found


def dear() -> Any:
    found = synthetic.evaluation()
    found["price"] = [{"text": "pydoc", "base": 10.0, "pruned": 14.0}]
    return found


def test_a_dear_set_is_to_be_searched_anew_within_the_budget() -> None:
    assert steps(dear())[0] == "levelhead retry 'runs/my first' --max-ppl-increase 0.05"
    assert not any("--budget" in one for one in steps(cheap()))


def test_a_reduction_within_the_budget_goes_to_transfer_and_the_gate() -> None:
    nobody = {"own_group_mentions": None}
    found = steps(cheap(), verdict="lower", **nobody)
    assert found == ["levelhead transfer 'runs/my first'", "levelhead verify 'runs/my first/model'"]
    assert not any("verify" in one for one in steps(dear(), verdict="lower", **nobody))


def test_a_gap_too_small_to_tell_asks_for_other_axes_and_a_larger_one_for_samples() -> None:
    base = synthetic.evaluation()["axes"]["gender_and_sex"]["base"]
    small = {"power": {"detectable": 0.04}, "base": base | {"bias_corrected": 0.01}}
    assert "levelhead evaluate 'runs/my first' --all-axes" in steps(
        cheap(), verdict="not distinguishable", **small
    )
    large = {"power": {"detectable": 0.04}, "base": base | {"bias_corrected": 0.09}}
    found = steps(
        cheap(), verdict="not distinguishable", samples=1600, samples_needed=4000, **large
    )
    assert "levelhead run gpt2 --samples 12 --out 'runs/my first-more'" in found


def test_a_group_no_longer_named_is_to_be_read() -> None:
    fell = {"own_group_mentions": {"fell": ["queer"]}}
    assert "levelhead examples 'runs/my first'" in steps(cheap(), verdict="lower", **fell)


def test_what_was_not_measured_is_to_be_measured() -> None:
    found = [one.command for one in next_steps(RUN, {}, {}, {"axis": "a"}, {})]
    assert found == ["levelhead prune 'runs/my first'", "levelhead evaluate 'runs/my first'"]


@pytest.mark.parametrize("verdict", ["lower", "higher", "echo only", "not distinguishable", "?"])
@pytest.mark.parametrize("evaluation", [cheap, dear])
def test_every_command_is_one_that_there_is(verdict: str, evaluation: Any) -> None:
    found = steps(evaluation(), {"reliable": False}, verdict=verdict)
    assert len(found) <= MOST
    for command in found:
        program, name, *flags = shlex.split(command)
        assert program == "levelhead"
        known = {flag for p in cli.commands[name].params for flag in p.opts}
        assert {flag for flag in flags if flag.startswith("--")} <= known
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_the_report_shows_them_to_copy_and_nothing_without_a_folder() -> None:
    findings = synthetic.findings(evaluation=dear(), run=RUN)
    section = sections.next_steps(findings)
    assert section is not None
    assert section.commands
    assert "`levelhead retry 'runs/my first' --max-ppl-increase" in render_markdown(findings)
    assert sections.next_steps(synthetic.findings(evaluation=dear())) is None
