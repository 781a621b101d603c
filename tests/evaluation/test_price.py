"""The price on several texts: known KL, texts of every template, and the worst one binds."""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.reporting import synthetic
from tests.rounding import SAME
from transformers import PreTrainedModel

from levelhead import journal
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, MissingExtraError, TextError
from levelhead.evaluation.base import pruned_model, without_heads
from levelhead.evaluation.divergence import TextComparison, check_text, compare_on_text
from levelhead.evaluation.own_text import OwnTexts, compare_on_own, own_texts
from levelhead.evaluation.prices import measured_prices
from levelhead.price import OWN_TEXT, prices, title, worst_price
from levelhead.progress import silent
from levelhead.records import Prompt
from levelhead.reporting.readiness import judged_ready
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.teacher_forcing import Row
from levelhead.session import Session
from levelhead.testing import save_tiny_checkpoint, tiny_model, tiny_tokenizer

SHARPER = 1.3
ROWS = (
    Row((5, 60, 61), (70, 71, 72, 73), 0),
    Row((5, 9), (80,), 1),
    Row((5, 9, 40, 41, 42), (90, 91), 0),
    Row((5, 62), (75, 76, 77), 1),
)
OWN = OwnTexts(rows=ROWS, cluster=np.array([0, 1, 1, 2]), sampled=4)


@pytest.fixture(scope="module")
def base() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def sharper() -> PreTrainedModel:
    """The same model with every logit times `SHARPER`."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("lm_head.weight").mul_(SHARPER)
    return model


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    model = save_tiny_checkpoint(tmp_path_factory.mktemp("model"), "llama")
    return Session(RunConfig(model=str(model), toxicity="profanity-check", text="pydoc",
                             text_tokens=1024, dtype="float32"))  # fmt: skip


def by_hand(model: PreTrainedModel, row: Row) -> tuple[float, float, float]:
    """(NLL of the model, NLL of the sharper one, KL) summed over a continuation, in float64."""
    ids = torch.tensor([row.prompt_ids + row.continuation])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1].double()
    p, q = logits.log_softmax(-1), (SHARPER * logits).log_softmax(-1)
    at = torch.tensor(row.continuation)[:, None]
    kl = (p.exp() * (p - q)).sum()
    return float(-p.gather(1, at).sum()), float(-q.gather(1, at).sum()), float(kl)


def test_a_model_costs_nothing_against_itself(base: PreTrainedModel, session: Session) -> None:
    (own,) = compare_on_own(base, [pruned_model(base)], OWN, silent, pad=0)
    (text,) = compare_on_text(session, base, [pruned_model(base)], "test", silent, name="everyday")
    for found in (own, text):
        assert found.kl.value == pytest.approx(0, abs=1e-9)
        assert found.increase.value == pytest.approx(0, abs=1e-9)


def test_kl_of_changed_logits_is_that_of_a_hand_computation(
    base: PreTrainedModel, sharper: PreTrainedModel
) -> None:
    found, same = compare_on_own(
        base, [pruned_model(sharper), pruned_model(base)], OWN, silent, pad=0, batch_size=3
    )
    hand = np.array([by_hand(base, row) for row in ROWS])
    tokens = np.array([len(row.continuation) for row in ROWS])
    assert found.block_kl == pytest.approx(hand[:, 2], rel=SAME)
    assert found.base.block_nll == pytest.approx(hand[:, 0], rel=SAME)
    assert found.kl.value == pytest.approx(hand[:, 2].sum() / tokens.sum(), rel=SAME)
    rise = np.exp((hand[:, 1] - hand[:, 0]).sum() / tokens.sum()) - 1
    assert found.increase.value == pytest.approx(rise, rel=1e-3)
    assert found.kl.value > 1e-3, "control: the change is no rounding"
    assert same.kl.value == pytest.approx(0, abs=1e-9)


def test_the_interval_is_over_templates(base: PreTrainedModel, sharper: PreTrainedModel) -> None:
    """Copies of texts under the same templates tell nothing new; as new templates they would."""

    def width(rows: tuple[Row, ...], cluster: list[int]) -> float:
        own = OwnTexts(rows=rows, cluster=np.array(cluster), sampled=len(rows))
        (one,) = compare_on_own(base, [pruned_model(sharper)], own, silent, pad=0)
        return one.kl.interval.high - one.kl.value

    once = width(ROWS, [0, 1, 2, 3])
    assert width(ROWS * 4, [0, 1, 2, 3] * 4) == pytest.approx(once, rel=1e-4)
    assert width(ROWS * 4, list(range(16))) < once / 2


def test_what_was_read_is_not_read_again_after_a_kill(
    base: PreTrainedModel, sharper: PreTrainedModel, session: Session, tmp_path: Path
) -> None:
    read: list[int] = []

    def counted() -> Any:
        read.append(1)
        return nullcontext(sharper)

    def both() -> list[TextComparison]:
        given = (session, base, [counted], "test", silent)
        return [
            *compare_on_text(*given, name="everyday"),
            *compare_on_own(base, [counted], OWN, silent, pad=0, batch_size=1),
        ]

    def killed() -> None:
        with journal.stage(tmp_path, "evaluate", {"of": 1}):
            whole.extend(both())
            raise KeyboardInterrupt

    whole: list[TextComparison] = []
    with pytest.raises(KeyboardInterrupt):
        killed()
    once = len(read)
    assert once == 4 + len(whole[0].base.block_tokens)
    with journal.stage(tmp_path, "evaluate", {"of": 1}):
        again = both()
    assert len(read) == once
    for one, other in zip(whole, again, strict=True):
        assert np.array_equal(one.block_kl, other.block_kl)
        assert one.kl == other.kl


def written(counts: list[int], seed: int = 0) -> tuple[BiasProblem, SampledTexts]:
    """Texts of a made-up sampling: so many of each template."""
    prompts = [
        Prompt(id=f"{t}", text=f"T{t}", axis="x", subgroup="ab"[t % 2], template=f"t{t}",
               descriptor="d", split="test")
        for t in range(len(counts))
    ]  # fmt: skip
    none: Any = None
    problem = BiasProblem(
        model=none, tokenizer=none, scorer=none, prompts=tuple(prompts),
        prompt_ids=tuple((t,) for t in range(len(counts))), toxicity_input="continuation",
        seed=seed, samples=1, new_tokens=1, batch_size=None,
    )  # fmt: skip
    prompt = np.repeat(np.arange(len(counts)), counts)
    texts = SampledTexts(
        prompt=prompt, sample=np.zeros(len(prompt), int),
        tokens=tuple((number,) for number in range(len(prompt))),
        texts=("",) * len(prompt), toxicity=np.zeros(len(prompt)),
    )  # fmt: skip
    return problem, texts


def test_own_texts_are_spread_over_templates() -> None:
    found = own_texts([written([50, 3, 50, 1])], most=20)
    assert len(found.rows) == 20
    assert found.sampled == 104
    assert Counter(found.cluster.tolist()) == {0: 8, 1: 3, 2: 8, 3: 1}
    assert all(
        row.prompt_ids == (code,) for row, code in zip(found.rows, found.cluster, strict=True)
    )
    assert len({row.continuation for row in found.rows}) == 20, "none is taken twice"


def test_which_own_texts_are_read_is_a_matter_of_the_seed() -> None:
    one, again, other = (own_texts([written([40, 40], seed)], most=20) for seed in (0, 0, 1))
    assert one.rows == again.rows
    assert one.rows != other.rows
    assert len(own_texts([written([2, 2])], most=20).rows) == 4, "fewer than that: all of them"


def test_templates_of_two_axes_are_one_set_of_clusters() -> None:
    """The same words on two axes stand or fall together."""
    found = own_texts([written([4, 4]), written([4, 4, 4])], most=20)
    assert set(found.cluster.tolist()) == {0, 1, 2}
    assert len(found.rows) == 20


def test_every_text_has_its_price(session: Session) -> None:
    variant = without_heads(session.base.model, {0: (0, 1), 1: (2,)})
    main, found = measured_prices(session, variant, OWN, silent)
    assert [one["text"] for one in found] == ["pydoc", "literature", "everyday", OWN_TEXT]
    assert [one["tokens"] for one in found] == [512, 512, 512, 10]
    for one in found:
        low, high = one["increase"]["ci95"]
        assert low < one["increase"]["value"] < high
        assert one["increase"]["value"] == pytest.approx(one["pruned"] / one["base"] - 1)
        assert 0 < one["kl"]["value"] < one["kl"]["ci95"][1]
    assert found[0]["kl"] == main.kl.to_json()
    assert found[3]["texts"] == 4
    assert found[3]["templates"] == 3


def test_none_leaves_the_further_texts_out(session: Session) -> None:
    alone = Session(replace(session.config, price_text=("none",)))
    _, found = measured_prices(alone, pruned_model(session.base.model), OWN, silent)
    assert [one["text"] for one in found] == ["pydoc", OWN_TEXT]


@pytest.mark.parametrize("window", ["every-token", "paper"])
def test_further_texts_are_read_whole_whatever_the_windows_of_the_first(
    session: Session, window: str
) -> None:
    other = Session(replace(session.config, text_windows=window))
    base = other.base.model
    (one,) = compare_on_text(other, base, [pruned_model(base)], "test", silent, name="literature")
    assert one.base.num_tokens == 512
    assert one.base.weighted


def test_the_plan_counts_further_texts(session: Session) -> None:
    assert Session(session.config).plan().price_tokens == 2 * 512
    assert Session(replace(session.config, price_text=("none",))).plan().price_tokens == 0


def test_a_text_that_cannot_be_had_is_said_before_any_work(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"levelhead\[datasets\]"):
        Session(replace(session.config, price_text=("wikitext-2",))).plan()
    with pytest.raises(TextError, match="no such text: 'nowhere"):
        Session(replace(session.config, price_text=("nowhere.txt",))).plan()
    short = tmp_path / "short.txt"
    short.write_text("a " * 750 + "\n\n" + "b " * 750)
    with pytest.raises(TextError, match="perplexity needs at least 2,000"):
        Session(replace(session.config, price_text=(str(short),))).plan()


def test_a_text_of_one_window_is_refused_by_name(session: Session, tmp_path: Path) -> None:
    words = "the friend said that this house was good and kind and always there for people " * 27
    path = tmp_path / "text.txt"
    path.write_text(f"{words}\n\n{words}")
    one = Session(replace(session.config, price_text=(str(path),)))
    one.base.model.config.max_position_embeddings = 450
    with pytest.raises(TextError, match=r"1 window of this model.*longer --price-text than"):
        check_text(one, "test")


@pytest.mark.parametrize(
    "named", [("everyday", "everyday"), ("none", "everyday"), ("everyday", "none"), ("",)]
)
def test_price_texts_that_contradict_each_other(named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--price-text"):
        RunConfig(price_text=named)


def test_the_text_itself_is_no_further_one() -> None:
    assert RunConfig(text="everyday").price_texts == ("literature",)
    assert RunConfig().resolved().price_texts == ("literature", "everyday")
    again = RunConfig.from_json(json.loads(json.dumps(RunConfig(price_text=("none",)).to_json())))
    assert again.price_text == ("none",)
    old = {k: v for k, v in RunConfig().to_json().items() if k != "price_text"}
    assert RunConfig.from_json(old) == RunConfig(), "config.json of an older levelhead"


def test_scores_do_not_depend_on_the_further_texts() -> None:
    one, other = RunConfig(), RunConfig(price_text=("none",))
    assert one.fingerprint("score") == other.fingerprint("score")
    assert one.fingerprint("evaluate") != other.fingerprint("evaluate")


def dear(text: str, rise: float) -> dict[str, Any]:
    """An evaluation whose price on one text is another."""
    found = synthetic.evaluation()
    for one in found["price"]:
        if one["text"] == text:
            one |= {"pruned": one["base"] * (1 + rise), "increase": synthetic.estimate(rise, 0.02)}
    return found


@pytest.mark.parametrize("text", ["pydoc", "everyday", OWN_TEXT])
def test_the_worst_text_is_the_one_that_binds(text: str) -> None:
    evaluation = dear(text, 0.31)
    worst = worst_price(evaluation)
    assert worst is not None
    assert worst.rise == pytest.approx(0.31)
    assert worst.interval == pytest.approx((0.29, 0.33))
    assert worst.text == title({"text": text})
    judgement = judged_ready(evaluation, "gender_and_sex", 0.1)
    assert judgement is not None
    assert f"perplexity rose by 31% on {worst.text}, the worst of 3 texts" in judgement.sentence
    cheap = judged_ready(dear(text, 0.0), "gender_and_sex", 0.1)
    assert cheap is not None
    assert "perplexity" not in cheap.sentence, "control: nothing is above the limit"


def test_an_older_evaluation_has_one_price() -> None:
    old = synthetic.evaluation()
    del old["price"]
    worst = worst_price(old)
    assert worst is not None
    assert (worst.text, worst.where) == ("pydoc", "")
    assert worst.rise == pytest.approx(22.91 / 21.43 - 1)
    assert prices({}) == []
    assert worst_price({}) is None


@pytest.mark.parametrize(
    "bad", [None, "x", [], [None], [{}], [{"base": 0, "pruned": 1}], [{"base": True}], {"a": 1}]
)
def test_whatever_stands_in_price_is_survived(bad: Any) -> None:
    assert worst_price({"price": bad}) is None


def test_a_file_is_called_by_its_name_alone() -> None:
    found = worst_price({"price": [{"text": "/home/somebody/t.txt", "base": 2.0, "pruned": 3.0}]})
    assert found is not None
    assert found.text == "t.txt"


def test_the_tokenizer_of_the_tiny_model_reads_the_shipped_texts(session: Session) -> None:
    unknown = tiny_tokenizer().unk_token_id
    for name in ("everyday", "literature"):
        assert unknown not in session.text_ids("test", name)
