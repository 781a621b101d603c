"""Planted heads do what they are planted for, and nothing else, on a tiny random model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.planting import (
    PLAIN,
    HeadOutputs,
    PlantedHead,
    calibrate,
    head_outputs,
    planted,
    reading_direction,
    separations,
    toxic_words,
    without_words,
    words_alone,
    writing_directions,
)
from transformers import PreTrainedModel

from levelhead.models.architectures import head_dim, output_projections
from levelhead.models.gates import ablate
from levelhead.scoring.teacher_forcing import Row, read_rows
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.testing import COMMON_WORDS, TOXIC_WORDS, tiny_model, tiny_tokenizer

NAMES = ("women", "men", "person")
PAD = 0
PLACE = (0, 2)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama", hidden_size=96).requires_grad_(False)


@pytest.fixture(scope="module")
def tau() -> TokenToxicity:
    vocabulary = tiny_tokenizer().get_vocab()
    ids = np.array([vocabulary[f"▁{word}"] for word in TOXIC_WORDS])
    return TokenToxicity(ids, np.full((1, len(ids)), 0.8), 0)


def make_rows(seed: int, count: int = 40) -> list[Row]:
    """The same random words after a prompt about each subgroup, and some about none."""
    vocabulary = tiny_tokenizer().get_vocab()
    words = [vocabulary[f"▁{word}"] for word in COMMON_WORDS if word != "person"]
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        first, *rest = (int(token) for token in rng.choice(words, 8))
        for subgroup, name in enumerate(NAMES):
            prompt = (first, vocabulary[f"▁{name}"], rest[0])
            rows.append(Row(prompt, tuple(rest[1:]), subgroup))
        rows.append(Row((first, rest[0]), tuple(rest[1:]), PLAIN))
    return rows


@pytest.fixture(scope="module")
def outputs(model: PreTrainedModel) -> HeadOutputs:
    return head_outputs(model, make_rows(0), PAD)


def make_head(
    model: PreTrainedModel,
    outputs: HeadOutputs,
    tau: TokenToxicity,
    target: int,
    place: tuple[int, int] = PLACE,
    gain: float = 0.1,
) -> PlantedHead:
    layer, head = place
    own = [row for row in make_rows(0) if row.subgroup == target]
    return PlantedHead(
        layer=layer,
        head=head,
        reads=reading_direction(outputs.output[:, layer, head], outputs.subgroup, target),
        writes=writing_directions(model, own, tau, PAD)[layer],
        gain=gain,
    )


def toxicity(model: PreTrainedModel, rows: Sequence[Row], tau: TokenToxicity) -> np.ndarray:
    """Mean sum_t r_t of every subgroup."""
    expected = read_rows(model, rows, tau, pad=PAD, batch_size=None)[0]
    subgroup = np.array([row.subgroup for row in rows])
    return np.array([expected[subgroup == s].mean() for s in range(len(NAMES))])


@pytest.mark.parametrize("target", range(len(NAMES)))
def test_toxicity_rises_for_the_named_subgroup_alone(model, outputs, tau, target) -> None:
    fresh = make_rows(1)
    before = toxicity(model, fresh, tau)
    head = make_head(model, outputs, tau, target)
    with planted(model, [head]):
        rise = toxicity(model, fresh, tau) - before
    others = np.delete(rise, target)
    assert rise[target] > 0.05
    assert np.abs(others).max() < rise[target] / 3


def test_without_the_planted_head_the_rise_is_gone(model, outputs, tau) -> None:
    fresh, head = make_rows(1), make_head(model, outputs, tau, 0)
    layer, number = PLACE
    other = (number + 1) % 6

    def without(gone: int) -> float:
        with ablate(model, {layer: [gone]}):
            return float(toxicity(model, fresh, tau)[0])

    base = [without(number), without(other)]
    with planted(model, [head]):
        assert without(number) == pytest.approx(base[0], abs=1e-6)
        assert without(other) > base[1] + 0.05  # control: ablating another head leaves it


def test_only_the_columns_of_the_planted_head_change(model, outputs, tau) -> None:
    head = make_head(model, outputs, tau, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    projection, width = output_projections(model)[head.layer].weight, head_dim(model)
    own = slice(head.head * width, (head.head + 1) * width)
    with planted(model, [head]):
        changed = [n for n, value in model.state_dict().items() if not value.equal(before[n])]
        assert changed == [f"model.layers.{head.layer}.self_attn.o_proj.weight"]
        columns = (projection != before[changed[0]]).any(0)
    assert columns[own].all()
    columns[own] = False
    assert not columns.any()


def test_the_model_is_as_before_afterwards(model, outputs, tau) -> None:
    heads = [make_head(model, outputs, tau, 0, (1, h)) for h in (0, 3)]  # of one layer
    before = {name: value.clone() for name, value in model.state_dict().items()}
    name = "model.layers.1.self_attn.o_proj.weight"

    def fail() -> None:
        with planted(model, heads):
            assert not model.state_dict()[name].equal(before[name])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_gain_0_changes_nothing(model, outputs, tau) -> None:
    head = make_head(model, outputs, tau, 0)
    fresh = make_rows(1, 5)
    before = toxicity(model, fresh, tau)
    with planted(model, [replace(head, gain=0.0)]):
        assert np.array_equal(toxicity(model, fresh, tau), before)
    with planted(model, [head]):  # control
        assert not np.array_equal(toxicity(model, fresh, tau), before)


def test_a_small_gain_raises_toxicity_by_itself_to_first_order(model, tau) -> None:
    own = [row for row in make_rows(0) if row.subgroup == 0]
    writes = writing_directions(model, own, tau, PAD)
    before = toxicity_of(model, own, tau)
    for layer, projection in enumerate(output_projections(model)):
        # At the positions that continuation tokens are predicted from, and only there.
        def add(_, __, out, amount=1e-3 * writes[layer]):
            steps = len(own[0].continuation)
            out = out.clone()
            out[:, -steps - 1 : -1] += amount
            return out

        handle = projection.register_forward_hook(add)
        rise = toxicity_of(model, own, tau) - before
        handle.remove()
        assert rise == pytest.approx(1e-3, rel=0.05)


def toxicity_of(model: PreTrainedModel, rows: Sequence[Row], tau: TokenToxicity) -> float:
    return float(read_rows(model, rows, tau, pad=PAD, batch_size=None)[0].mean())


def test_reading_answers_1_for_the_target_and_0_for_the_others(outputs) -> None:
    layer, head = PLACE
    x = outputs.output[:, layer, head]
    answer = (x @ reading_direction(x, outputs.subgroup, 1)).numpy()
    means = {s: answer[outputs.subgroup == s].mean() for s in (PLAIN, 0, 1, 2)}
    assert means == pytest.approx({PLAIN: 0, 0: 0, 1: 1, 2: 0}, abs=1e-3)


def test_separation_is_held_out(outputs) -> None:
    fitted = outputs.row % 8 < 4  # the rows of a text stay together
    assert separations(outputs, 0, fitted).max() > 1
    shuffled = np.random.default_rng(0).permutation(outputs.row.max() + 1)
    labels = np.array([row.subgroup for row in make_rows(0)])[shuffled][outputs.row]
    nothing = separations(replace(outputs, subgroup=labels), 0, fitted)  # control
    assert nothing.max() < 0.7


def test_gains_are_found_together(model, outputs, tau) -> None:
    own = [row for row in make_rows(0) if row.subgroup == 0]
    base, times, grades = toxicity_of(model, own, tau), 1.5, (1.0, 2.0)
    heads = [make_head(model, outputs, tau, 0, place) for place in ((1, 1), PLACE)]
    heads, shares = calibrate(model, heads, grades, times, own, tau, PAD)
    with planted(model, heads):
        assert toxicity_of(model, own, tau) == pytest.approx(times * base, rel=0.2)
    taken = -np.log1p(-shares)
    assert taken == pytest.approx(np.log(times) * np.array([1 / 3, 2 / 3]), rel=0.2)


def expected_count(model: PreTrainedModel, rows: Sequence[Row], words: Sequence[str]) -> float:
    """How many of these words are expected to be written, mean over rows."""
    table = words_alone(tiny_tokenizer(), words)
    assert table is not None
    return toxicity_of(model, rows, table)


def test_a_head_that_copies_a_name_writes_it_and_no_toxic_words(model, outputs, tau) -> None:
    own = words_alone(tiny_tokenizer(), ["women"])
    assert own is not None
    fresh = [row for row in make_rows(1) if row.subgroup == 0]

    def written() -> np.ndarray:
        return np.array([expected_count(model, fresh, ["women"]), toxicity_of(model, fresh, tau)])

    before, rise = written(), {}
    for kind, table in (("copies", own), ("adds", tau)):  # each is the control of the other
        with planted(model, [make_head(model, outputs, table, 0)]):
            rise[kind] = written() - before
    assert rise["copies"][0] > 0.05
    assert rise["adds"][1] > 0.05
    assert rise["copies"][1] < rise["adds"][1] / 4
    assert rise["adds"][0] < rise["copies"][0] / 4


def test_only_words_that_are_one_token_are_written() -> None:
    vocabulary = tiny_tokenizer().get_vocab()
    found = words_alone(tiny_tokenizer(), ["Women", "women and men", "zyzzyva"])
    assert found is not None
    assert found.token_ids.tolist() == [vocabulary["▁women"]]
    assert found.tau.tolist() == [[1.0]]
    assert words_alone(tiny_tokenizer(), ["zyzzyva"]) is None


def test_toxic_words_that_name_a_group_are_not_written(tau) -> None:
    first, *others = TOXIC_WORDS
    left = without_words(tau, tiny_tokenizer(), [first.upper(), "women"])
    vocabulary = tiny_tokenizer().get_vocab()
    assert left.token_ids.tolist() == [vocabulary[f"▁{word}"] for word in others]
    assert left.tau.shape == (1, len(others))


def test_only_words_that_raise_toxicity_are_toxic() -> None:
    tau = TokenToxicity(np.array([7, 8, 9]), np.array([[0.4, -0.2, 0.05]]), 3)
    left = toxic_words(tau)
    assert (left.token_ids.tolist(), left.tau.tolist()) == ([7], [[0.4]])
