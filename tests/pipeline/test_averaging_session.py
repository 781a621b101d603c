"""From a run's options to an edit that is judged, saved and shipped, on the planted model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.averaging import shuffled
from benchmarks.judging import Way, judge
from tests.rounding import same_weights

from levelhead.config import RunConfig
from levelhead.errors import ConfigError, PromptError
from levelhead.evaluation.averaging import collect
from levelhead.evaluation.axis import expected_difference
from levelhead.evaluation.base import BaseAxis, base_axis, edited
from levelhead.evaluation.divergence import compare_on_text
from levelhead.evaluation.finalists import validation_base
from levelhead.models.average_edit import average_of, save_averaged
from levelhead.models.averaging import Averager
from levelhead.models.checkpoint import load
from levelhead.price import OWN_TEXT
from levelhead.progress import silent
from levelhead.scoring.matched_moments import matched_contexts
from levelhead.scoring.matched_rows import grouped_rows
from levelhead.session import Session


@pytest.fixture(scope="module")
def session(inputs: Path, options: dict[str, Any]) -> Session:
    return Session(RunConfig(model=str(inputs / "model"), **options))


@pytest.fixture(scope="module")
def validation(session: Session) -> BaseAxis:
    return validation_base(session, "gender", silent)


@pytest.fixture(scope="module")
def averager(session: Session, validation: BaseAxis) -> Averager:
    return collect(session, {"gender": validation}, silent)


@pytest.fixture(scope="module")
def test_base(session: Session) -> BaseAxis:
    return base_axis(replace(session.problem("gender", "test"), samples=1), silent)


def test_the_gap_falls_on_test_prompts_at_hardly_any_price(
    session: Session, averager: Averager, validation: BaseAxis, test_base: BaseAxis
) -> None:
    model = session.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = averager.contexts["gender"].readout
    shuffled = matched_contexts(validation.problem, validation.texts, silent, target="shuffled")
    control = replace(averager, contexts={"gender": replace(shuffled, readout=own)})
    for rank in (1, None):
        edit, other = (one.edit(strength=10, rank=rank) for one in (averager, control))
        found = expected_difference(test_base, edited(model, edit), silent)
        assert found.interval.high < 0
        noise = expected_difference(test_base, edited(model, other), silent)
        assert abs(noise.value) < 0.3 * abs(found.value), "control: shuffled labels"
        assert other.record["axes"]["gender"]["target"] == "shuffled"
        assert other.record["left"] == {}
        (text,) = compare_on_text(session, model, [edited(model, edit)], "test", silent)
        assert text.increase.value < 0.01
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_benchmark_tells_averaging_from_shuffled_labels(
    session: Session, averager: Averager, validation: BaseAxis, test_base: BaseAxis
) -> None:
    edits = {
        (name, rank): one.edit(strength=10, rank=rank)
        for name, one in (("average", averager), ("shuffled", shuffled(averager, validation)))
        for rank in (1, None)
    }
    model = session.base.model
    ways = [
        Way(name=name, setting={"rank": rank}, variant=edited(model, edit))
        for (name, rank), edit in edits.items()
    ]
    tokens = dict.fromkeys((None, *session.config.price_texts), 200)
    found = judge(session, test_base, ways, "test", tokens)
    for one in found:
        change = one.matched_bias["change"]
        assert (change["ci95"][1] < -0.5) is (one.way.name == "average")
        own = session.text("test").name
        assert set(one.price) == {own, *session.config.price_texts, OWN_TEXT}
    assert found[0].to_json()["expected_difference"]["ci95"][1] < 0


def test_the_record_says_what_it_was_computed_from(
    session: Session, averager: Averager, validation: BaseAxis, tmp_path: Path
) -> None:
    protected = {1: [0, 5]}
    edit = averager.edit(strength=10, rank=2, layers=[1, 2], protected=protected)
    record = edit.record
    assert json.loads(json.dumps(record)) == record
    assert {key: record[key] for key in ("method", "what", "lambda", "rank", "layers")} == {
        "method": "average", "what": "toxicity", "lambda": 10, "rank": 2, "layers": [1, 2],
    }  # fmt: skip
    assert record["protected_heads"] == {"1": [0, 5]}
    (axis,) = record["axes"].values()
    groups = grouped_rows(validation.problem, validation.texts)
    positions = sum(len(row.continuation) + 1 for rows in groups for row in rows)
    assert axis == {
        "target": "average", "prompts": 36, "groups": 12, "positions": positions, "weight": 1.0,
    }  # fmt: skip
    texts = {one["name"]: one for one in record["texts"]}
    assert set(texts) == {"text.txt", *session.config.price_texts}
    assert texts["text.txt"]["sha256"] == session.text("validation").sha256
    assert {one["split"] for one in texts.values()} == {"validation"}
    assert 0 < record["left"]["1"] < 1
    assert 0 < record["moved"]["1"] < 1
    assert averager.edit(strength=10).record["what"] == "all"
    model = session.load(session.base_path).model
    edit.apply(model)
    again = load(save_averaged(model, tmp_path / "saved", session.tokenizer))
    assert average_of(again) == record
    assert same_weights(again, model)


def test_the_plain_form_needs_no_backward_pass(session: Session, validation: BaseAxis) -> None:
    for parameter in session.base.model.parameters():
        assert parameter.grad is None
    plain = collect(session, {"gender": validation}, silent, readout=False, layers=[1], texts=())
    assert plain.layers == [1]
    assert [one["name"] for one in plain.texts] == ["text.txt"]
    assert list(plain.edit(strength=10).changes) == [1]
    with pytest.raises(ConfigError, match="no gradients of it were collected for gender"):
        plain.edit(strength=10, rank=2)


def test_prompts_without_counterparts_are_refused(session: Session, validation: BaseAxis) -> None:
    apart = tuple(replace(p, template=p.id) for p in validation.problem.prompts)
    alone = replace(validation, problem=replace(validation.problem, prompts=apart))
    with pytest.raises(PromptError, match="has no matched groups among 36 prompts"):
        collect(session, {"gender": alone}, silent)
