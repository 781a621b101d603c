"""What differs between subgroups goes, what does not stays: the algebra, on numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from levelhead.errors import ConfigError, ModelError, SelectionError
from levelhead.models.architectures import head_counts, head_dim, output_projections
from levelhead.models.averaging import Averager, Contexts, Target
from levelhead.models.least_squares import Moments, read_weight
from levelhead.models.surgery import prune_heads
from levelhead.testing import tiny_model

MODEL = tiny_model("llama")
LAYERS, HEADS = head_counts(MODEL)
WIDTH = HEADS * head_dim(MODEL)
TEXTS = [{"name": "text", "split": "validation", "sha256": "0" * 64, "tokens": 10_000}]
RIDGE = 1e-3


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matched(seed: int, groups: int = 60, subgroups: int = 3, differ: float = 0.5) -> Tensor:
    """[groups, subgroups, width]: what contexts have in common, and what is a subgroup's own."""
    common = normal(seed, groups, 1, WIDTH)
    own = normal(seed + 1, 1, subgroups, WIDTH)
    return common + differ * (own + 0.2 * normal(seed + 2, groups, subgroups, WIDTH))


def contexts(x: Tensor, target: Target = "average", readout: Tensor | None = None) -> Contexts:
    """Of inputs [groups, subgroups, width], the same in every layer."""
    flat = x.reshape(-1, WIDTH)
    mean = x.mean(1, keepdim=True).expand_as(x).reshape(-1, WIDTH)
    z = flat if target == "own" else mean
    moments = Moments(gram=flat.T @ flat / len(flat), cross=z.T @ flat / len(flat))
    return Contexts(
        moments=dict.fromkeys(range(LAYERS), moments),
        readout={} if readout is None else dict.fromkeys(range(LAYERS), readout),
        target=target, prompts=len(flat), groups=len(x), positions=len(flat) * 100,
    )  # fmt: skip


def averager(text: Tensor, axes: dict[str, Contexts], **options: Any) -> Averager:
    gram = text.T @ text / len(text)
    grams = dict.fromkeys(range(LAYERS), gram)
    return Averager(model=MODEL, text=grams, texts=TEXTS, contexts=axes, **options)


def weight(layer: int = 0) -> Tensor:
    return read_weight(output_projections(MODEL)[layer])


def test_the_change_is_the_formula_and_what_least_squares_finds() -> None:
    """Against the normal equations of the brief, and against one big least-squares problem."""
    text, x = normal(0, 500, WIDTH), matched(1)
    found = averager(text, {"a": contexts(x)}).edit(strength=7.0, ridge=RIDGE).changes[0].dense
    flat, mean = x.reshape(-1, WIDTH), x.mean(1, keepdim=True).expand_as(x).reshape(-1, WIDTH)
    m, a, b = text.T @ text / 500, flat.T @ flat / len(flat), mean.T @ flat / len(flat)
    lhs = m + 7 * a + RIDGE * torch.diag((m + 7 * a).diagonal())
    formula = torch.linalg.solve(lhs, (7 * weight() @ (b - a)).T).T
    assert torch.allclose(found, formula, atol=1e-10)
    rows = torch.cat(
        [
            text / 500**0.5,
            (7 / len(flat)) ** 0.5 * flat,
            torch.diag((lhs - m - 7 * a).diag().sqrt()),
        ]
    )
    wanted = (
        torch.cat(
            [
                text / 500**0.5,
                (7 / len(flat)) ** 0.5 * mean,
                torch.diag((lhs - m - 7 * a).diag().sqrt()),
            ]
        )
        @ weight().T
    )
    assert torch.allclose(weight() + found, torch.linalg.lstsq(rows, wanted).solution.T, atol=1e-8)


def test_no_difference_between_subgroups_changes_no_bit() -> None:
    same = normal(0, 40, 1, WIDTH).expand(40, 3, WIDTH)
    flat = same.reshape(-1, WIDTH)
    gram = flat.T @ flat
    alike = contexts(same)
    alike.moments[0].cross[:] = alike.moments[0].gram  # as collected: tests/scoring
    edit = averager(normal(1, 500, WIDTH), {"a": alike}).edit(strength=10)
    assert gram.any()
    assert not any(change.dense.any() for change in edit.changes.values())
    control = averager(normal(1, 500, WIDTH), {"a": contexts(matched(0))}).edit(strength=10)
    assert control.changes[0].dense.any()


def test_a_planted_direction_goes_and_its_neighbour_stays() -> None:
    """One direction says which subgroup it is, another one which topic, equally strong."""
    basis = torch.linalg.qr(normal(3, WIDTH, WIDTH)).Q
    subgroup, topic = basis[0], basis[1]
    signs = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[None, :, None]
    topics = normal(4, 400, 1, 1)
    x = 0.05 * normal(5, 400, 1, WIDTH) + 2 * signs * subgroup + 2 * topics * topic
    text = normal(6, 4000, WIDTH) * 0.3 + 2 * normal(7, 4000, 1) * topic
    edit = averager(text, {"a": contexts(x)}).edit(strength=100, ridge=RIDGE)
    new = weight() + edit.changes[0].dense
    assert (new @ subgroup).norm() < 0.05 * (weight() @ subgroup).norm()
    assert (new @ topic - weight() @ topic).norm() < 0.01 * (weight() @ topic).norm()
    assert edit.record["left"]["0"] < 0.05
    assert edit.record["moved"]["0"] < 0.05


def test_only_what_is_read_changes_and_the_rank_is_as_asked() -> None:
    loadings = normal(8, WIDTH, 4)
    readout = loadings @ loadings.T
    one = averager(normal(0, 500, WIDTH), {"a": contexts(matched(1), readout=readout)})
    plain = one.edit(strength=10, ridge=RIDGE).changes[0].dense
    for rank in (1, 3, 4, WIDTH):
        change = one.edit(strength=10, ridge=RIDGE, rank=rank).changes[0]
        assert change.factors == rank == len(change.right)
        assert change.left is not None
        projector = change.left @ change.left.T
        assert torch.allclose(change.dense, projector @ plain, atol=1e-10), "as the formula says"
        if rank >= 4:
            assert torch.allclose(loadings.T @ change.dense, loadings.T @ plain, atol=1e-9)
    assert torch.allclose(change.dense, plain, atol=1e-9), "all directions: the plain form"
    assert float(one.shares(0)[:4].sum()) == pytest.approx(1)
    other = contexts(matched(1), readout=torch.diag(torch.arange(WIDTH).double()))
    last = replace(one, contexts={"a": other}).directions(0)[:, 0].abs()
    assert last.argmax() == WIDTH - 1, "other contexts have readouts of their own"
    silent = torch.linalg.qr(loadings, mode="complete").Q[:, 4:]
    assert (silent.T @ one.edit(strength=10, rank=4).changes[0].dense).abs().max() < 1e-9


def test_protected_heads_and_other_layers_stay() -> None:
    readout = torch.eye(WIDTH, dtype=torch.float64)
    one = averager(normal(0, 500, WIDTH), {"a": contexts(matched(1), readout=readout)})
    width = head_dim(MODEL)
    for rank in (None, 5):
        protected = {0: [1, 4], 2: range(HEADS)}
        edit = one.edit(strength=10, rank=rank, layers=[0, 2], protected=protected)
        assert list(edit.changes) == [0], "a layer whose heads are all protected has no change"
        by_head = edit.changes[0].dense.reshape(WIDTH, HEADS, width).abs().amax((0, 2))
        assert [head for head in range(HEADS) if by_head[head] == 0] == [1, 4]
        assert edit.record["protected_heads"] == {"0": [1, 4]}
        whole = one.edit(strength=10, rank=rank, layers=[0])
        free = [head for head in range(HEADS) if head not in (1, 4)]
        a, b = (e.changes[0].dense.reshape(WIDTH, HEADS, width)[:, free] for e in (edit, whole))
        assert not torch.allclose(a, b), "the free heads take account of those that stay"


def test_protected_heads_leave_to_the_others_what_they_owe() -> None:
    """The free columns solve their own least squares, with the held ones as they are."""
    text, x = normal(0, 500, WIDTH), matched(1)
    one = averager(text, {"a": contexts(x)})
    found = one.edit(strength=3, ridge=1e-9, protected={0: [0, 1, 2]}).changes[0].dense
    half = WIDTH // 2
    flat, mean = x.reshape(-1, WIDTH), x.mean(1, keepdim=True).expand_as(x).reshape(-1, WIDTH)
    share = (3 / len(flat)) ** 0.5
    rows = torch.cat([text / 500**0.5, share * flat])
    owed = torch.cat([torch.zeros_like(text), share * (mean - flat)]) @ weight().T
    wanted = torch.linalg.lstsq(rows[:, half:], owed).solution.T
    assert torch.allclose(found[:, half:], wanted, atol=1e-6)


def objective(change: Tensor, text: Tensor, x: Tensor) -> tuple[float, float]:
    """(text's part, matched part), each with its share of the ridge."""
    flat, mean = x.reshape(-1, WIDTH), x.mean(1, keepdim=True).expand_as(x).reshape(-1, WIDTH)
    moved = ((text @ change.T) ** 2).sum(1).mean()
    missed = (((mean - flat) @ weight().T - flat @ change.T) ** 2).sum(1).mean()
    ridge = [((change**2).sum(0) * (one**2).mean(0)).sum() * RIDGE for one in (text, flat)]
    return float(moved + ridge[0]), float(missed + ridge[1])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    strengths=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2, unique=True),
    subgroups=st.integers(2, 5),
    differ=st.floats(0.05, 3),
)
def test_it_never_does_worse_than_nothing_and_more_strength_moves_further(
    seed: int, strengths: list[float], subgroups: int, differ: float
) -> None:
    text, x = normal(seed, 120, WIDTH), matched(seed + 7, 30, subgroups, differ)
    one = averager(text, {"a": contexts(x)})
    low, high = sorted(strengths)
    nothing = objective(torch.zeros(WIDTH, WIDTH, dtype=torch.float64), text, x)
    parts = []
    for strength in (low, high):
        edit = one.edit(strength=strength, ridge=RIDGE)
        parts.append(objective(edit.changes[0].dense, text, x))
        reached, before = (p[0] + strength * p[1] for p in (parts[-1], nothing))
        assert reached <= before * (1 + 1e-9)
    slack = 1e-7 * (nothing[0] + nothing[1] + 1)
    assert parts[1][0] >= parts[0][0] - slack, "text moves further"
    assert parts[1][1] <= parts[0][1] + slack, "less is left of the differences"


def test_axes_share_the_strength_by_weight_and_kept_contexts_hold() -> None:
    text = normal(0, 500, WIDTH)
    one, two = contexts(matched(1)), contexts(matched(11))
    both = averager(text, {"a": one, "b": two}, weights={"a": 3.0}).edit(strength=4, ridge=RIDGE)
    by_hand = Contexts(
        moments={0: one.moments[0].times(0.75).plus(two.moments[0].times(0.25))},
        readout={}, target="average", prompts=1, groups=1, positions=10_000,
    )  # fmt: skip
    alone = Averager(
        model=MODEL, text={0: text.T @ text / 500}, texts=TEXTS, contexts={"c": by_hand}
    )
    wanted = alone.edit(strength=4, ridge=RIDGE).changes[0].dense
    assert torch.allclose(both.changes[0].dense, wanted, atol=1e-12)
    x = matched(1)
    facts = contexts(x[:, :1] + 0.01 * normal(5, *x[:, :1].shape), target="own")
    free = averager(text, {"a": one}).edit(strength=100).changes[0].dense
    held = averager(text, {"a": one, "facts": facts}, weights={"facts": 100.0})
    seen = x[:, 0]
    moved = [float((seen @ d.T).norm()) for d in (held.edit(strength=100).changes[0].dense, free)]
    assert moved[0] < 0.2 * moved[1]


def test_what_is_out_of_range_is_refused_with_its_limit() -> None:
    text = normal(0, 500, WIDTH)
    one = averager(text, {"a": contexts(matched(1), readout=torch.eye(WIDTH).double())})
    for strength in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"lambda=.*a finite number above 0"):
            one.edit(strength=strength)
    for rank in (0, WIDTH + 1, 2.5, True):
        with pytest.raises(ConfigError, match=f"from 1 to {WIDTH}"):
            one.edit(strength=1, rank=rank)  # type: ignore[arg-type]
    for ridge in (0.0, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            one.edit(strength=1, ridge=ridge)
    with pytest.raises(SelectionError, match="layer 3 cannot be averaged: collected were layers 0"):
        one.edit(strength=1, layers=[0, 3])
    with pytest.raises(SelectionError, match="list of layers is empty"):
        one.edit(strength=1, layers=[])
    with pytest.raises(SelectionError, match="head 6 of layer 0 does not exist"):
        one.edit(strength=1, protected={0: [6]})
    with pytest.raises(SelectionError, match=r"every head of the layers .* is protected"):
        one.edit(strength=1, layers=[1], protected={1: range(HEADS)})
    with pytest.raises(ConfigError, match="no gradients of it were collected for a"):
        averager(text, {"a": contexts(matched(1))}).edit(strength=1, rank=2)
    with pytest.raises(ConfigError, match="contexts to keep alone change nothing"):
        averager(text, {"a": contexts(matched(1), target="own")})
    with pytest.raises(ConfigError, match=r"a weight of 0 for 'a'"):
        averager(text, {"a": contexts(matched(1))}, weights={"a": 0})
    with pytest.raises(ConfigError, match="a weight for 'b': there are a"):
        averager(text, {"a": contexts(matched(1))}, weights={"b": 1})
    broken = averager(text * float("nan"), {"a": contexts(matched(1))})
    with pytest.raises(ModelError, match="NaN or infinite"):
        broken.edit(strength=1)
    pruned = tiny_model("llama")
    prune_heads(pruned, {0: [1]})
    with pytest.raises(ModelError, match="pruned already"):
        Averager(model=pruned, text={}, texts=TEXTS, contexts={"a": contexts(matched(1))})


def test_few_positions_are_told_with_the_ridge_that_they_get() -> None:
    text = normal(0, 500, WIDTH)
    enough = averager(text, {"a": contexts(matched(1))}).edit(strength=1).record
    assert enough["warnings"] == []
    few = [{**TEXTS[0], "tokens": WIDTH - 1}]
    grams = dict.fromkeys(range(LAYERS), text.T @ text / 500)
    one = Averager(model=MODEL, text=grams, texts=few, contexts={"a": contexts(matched(1))})
    record = one.edit(strength=1).record
    assert record["ridge"] > enough["ridge"]
    (told,) = record["warnings"]
    assert f"{WIDTH - 1} tokens of text for layers of {WIDTH} inputs, fewer than inputs" in told
    assert f"a ridge of {record['ridge']:.2g}" in told


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quantised_model_gets_the_change_of_the_weights_that_it_has() -> None:
    quanto = pytest.importorskip("optimum.quanto")
    model = tiny_model("llama")
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    one = averager(normal(0, 500, WIDTH), {"a": contexts(matched(1))})
    wanted = one.edit(strength=10).changes[0].dense
    one.model = model
    found = one.edit(strength=10).changes[0].dense
    assert (found - wanted).norm() < 0.02 * wanted.norm()
    assert not torch.equal(found, wanted), "control: int8 is not float32"
