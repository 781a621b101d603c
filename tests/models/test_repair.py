"""What stays takes over what was removed: exact where it can be, never worse on its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_formats import EQUAL, STOCK_CANNOT
from tests.rounding import FAR, SAME, difference
from torch import Tensor
from transformers import PreTrainedModel

from levelhead.errors import CheckpointError, SelectionError, TextError
from levelhead.models.architectures import attention_modules, head_dim, output_projections
from levelhead.models.calibration import CalibrationText, projections
from levelhead.models.checkpoint import load, save_pruned
from levelhead.models.checksums import read_manifest
from levelhead.models.gates import ablate
from levelhead.models.least_squares import (
    Moments,
    fit,
    read_weight,
    rebuilt,
    second_moments,
    write_weight,
)
from levelhead.models.neuron_layouts import LAYOUTS
from levelhead.models.repair import (
    Repairer,
    kept_inputs,
    repair_of,
    same_repair,
    saved_repair,
)
from levelhead.models.units import ablate_units, prune_units
from levelhead.records import HeadSelection, Unit
from levelhead.testing import TINY_FAMILIES, TINY_VARIANTS, tiny_model

Fresh = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]
UNEVEN = [(0, 0), (0, 4), (1, 5), (2, 1), (2, 2), (2, 3)]
NEURONS = HeadSelection.of([(0, n) for n in range(0, 40, 3)] + [(2, 1)], unit="neuron")


def text(tokens: int = 1500, seed: int = 0, name: str = "text") -> CalibrationText:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 200, (tokens,), generator=generator).tolist()
    return CalibrationText(name=name, sha256="0" * 64, split="validation", tokens=tuple(ids))


def repairer(model: PreTrainedModel, ridge: float | None = None, tokens: int = 1500) -> Repairer:
    return Repairer(model, (text(tokens),), bos=1, ridge=ridge)


def pruned(model: PreTrainedModel, selection: HeadSelection, **options: Any) -> PreTrainedModel:
    """The model itself, pruned and repaired."""
    prune_units(model, selection, repairer(model, **options).repair(selection))
    return model


def with_a_copy(model: PreTrainedModel, layer: int, source: int, copy: int) -> None:
    """Make what one head writes a linear function of what another one does."""
    width = head_dim(model)
    attention: Any = attention_modules(model)[layer]
    one, other = (slice(head * width, (head + 1) * width) for head in (source, copy))
    mixed = torch.randn(width, width, generator=torch.Generator().manual_seed(3)) * 0.4
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight[other] = projection.weight[one]
        attention.v_proj.weight[other] = mixed @ attention.v_proj.weight[one]


def test_a_head_that_is_a_linear_copy_of_another_is_repaired_without_loss(
    fresh: Fresh, logits: Logits
) -> None:
    selection = HeadSelection.of([(1, 4)])
    for is_copy in (True, False):
        model = fresh("llama", num_key_value_heads=6)
        if is_copy:
            with_a_copy(model, 1, source=2, copy=4)
        whole = logits(model)
        with ablate(model, selection.by_layer):
            assert difference(logits(model), whole) > FAR, "the head matters"
        repair = repairer(model, ridge=1e-9).repair(selection)
        prune_units(model, selection, repair)
        left = difference(logits(model), whole)
        rebuilt = repair.record["rebuilt"]["1"]
        assert (left < 10 * SAME) is is_copy, "control: any other head leaves a rest"
        assert (rebuilt > 0.9999) is is_copy


def test_by_default_a_copy_is_repaired_up_to_the_ridge(fresh: Fresh, logits: Logits) -> None:
    model = fresh("llama", num_key_value_heads=6)
    with_a_copy(model, 1, source=2, copy=4)
    whole, selection = logits(model), HeadSelection.of([(1, 4)])
    with ablate(model, selection.by_layer):
        lost = difference(logits(model), whole)
    assert difference(logits(pruned(model, selection)), whole) < 0.1 * lost


@pytest.mark.parametrize("shape", ["Linear", "Conv1D"])
def test_a_fit_on_its_own_text_is_never_worse_than_none(shape: str) -> None:
    family = "llama" if shape == "Linear" else "gpt2"
    model = tiny_model(family, seed=4)
    windows = [[1, *text().tokens[:31]], [1, *text().tokens[40:71]]]
    modules = dict(enumerate(output_projections(model)))
    inputs: dict[int, list[Tensor]] = {layer: [] for layer in modules}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, layer=layer: inputs[layer].append(args[0].detach()[0])
        )
        for layer, module in modules.items()
    ]
    grams = second_moments(model, modules, windows)
    for handle in handles:
        handle.remove()
    rng = torch.Generator().manual_seed(1)
    for layer, module in modules.items():
        x = torch.cat(inputs[layer]).double()
        assert torch.allclose(grams[layer], x.T @ x / len(x), rtol=1e-4, atol=1e-6)
        weight = read_weight(module)
        for count in (1, 8, x.shape[1] - 1):
            kept = sorted(torch.randperm(x.shape[1], generator=rng)[:count].tolist())
            wanted = x @ weight.T
            plain = ((x[:, kept] @ weight[:, kept].T - wanted) ** 2).sum()
            for ridge in (1e-6, 1e-2, 10.0):
                found = fit(weight, Moments.keeping(grams[layer]), kept, ridge)
                error = ((x[:, kept] @ found.weight.T - wanted) ** 2).sum()
                assert error <= plain * 1.0001
                share = rebuilt(weight, found, grams[layer], kept)
                assert share == pytest.approx(float(1 - error / plain), abs=1e-3)


def test_with_nothing_removed_nothing_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    x = torch.randn(40, 7, generator=generator, dtype=torch.float64)
    found = fit(weight, Moments.keeping(x.T @ x / 40), range(7), 0.1)
    assert torch.equal(found.weight, weight)
    model = tiny_model("llama")
    assert repairer(model).repair(HeadSelection.of([])).weights == {}


def test_another_target_is_another_cross_moment() -> None:
    """The place for targets to come: the layer shall write W z for some other input z."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    x, z = torch.randn(2, 400, 7, generator=generator, dtype=torch.float64)
    z = z + x
    found = fit(weight, Moments(gram=x.T @ x, cross=z.T @ x), [0, 2, 3, 6], 1e-9)
    wanted = torch.linalg.lstsq(x[:, [0, 2, 3, 6]], z @ weight.T).solution.T
    assert torch.allclose(found.weight, wanted, atol=1e-6)


def test_inputs_that_are_always_zero_and_moments_that_are_not_finite() -> None:
    weight = torch.ones(2, 3, dtype=torch.float64)
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    assert torch.equal(fit(weight, Moments.keeping(nothing), [0, 1], 0.1).weight, weight[:, :2])
    one_dead = torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.isfinite(fit(weight, Moments.keeping(one_dead), [0, 1], 0.1).weight).all()
    from levelhead.errors import ModelError

    with pytest.raises(ModelError, match="NaN or infinite"):
        fit(weight, Moments.keeping(nothing * float("nan")), [0, 1], 0.1)
    for ridge in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            Repairer(tiny_model("llama"), (text(),), ridge=ridge)


@pytest.mark.parametrize("family", [*TINY_FAMILIES, *TINY_VARIANTS])
def test_every_family_and_format_holds_a_repaired_model(
    family: str, fresh: Fresh, logits: Logits, tmp_path: Path
) -> None:
    uneven = HeadSelection.of(UNEVEN)
    equal = HeadSelection.of(
        (n, head) for n, own in EQUAL["one of a group"].items() for head in own
    )
    jobs = [("compact", uneven), ("zeroed", uneven), ("remote-code", uneven)]
    if family not in STOCK_CANNOT and family not in TINY_VARIANTS:
        jobs.append(("uniform", equal))
    for form, selection in jobs:
        model = fresh(family)
        repair = repairer(model).repair(selection)
        with repair.applied(model), ablate(model, selection.by_layer):
            expected = logits(model)
        with ablate(model, selection.by_layer):
            unrepaired = logits(model)
        prune_units(model, selection, repair)
        assert difference(logits(model), expected) < SAME, "as in memory, gated off"
        assert difference(unrepaired, expected) > FAR, "control"
        folder = save_pruned(model, tmp_path / form, form)  # type: ignore[arg-type]
        again = load(folder)
        assert difference(logits(again), expected) < SAME
        assert repair_of(again) == repair.record == (read_manifest(folder) or {})["repair"]
        assert saved_repair(folder) == repair.record
        if form == "zeroed":
            weight = read_weight(output_projections(again)[0])
            assert not weight[:, : head_dim(again)].any(), "what is gone stays gone"


@pytest.mark.parametrize("family", [name for name in LAYOUTS if name in TINY_FAMILIES])
def test_neurons_alike(family: str, fresh: Fresh, logits: Logits, tmp_path: Path) -> None:
    for form in ("compact", "zeroed"):
        model = fresh(family)
        whole = logits(model)
        repair = repairer(model).repair(NEURONS)
        with repair.applied(model), ablate_units(model, "neuron", NEURONS.by_layer):
            expected = logits(model)
        assert difference(logits(model), whole) == 0, "as it was before"
        prune_units(model, NEURONS, repair)
        assert difference(logits(model), expected) < SAME
        again = load(save_pruned(model, tmp_path / form, form))  # type: ignore[arg-type]
        assert difference(logits(again), expected) < SAME
        assert repair_of(again) == repair.record
        assert min(repair.record["rebuilt"].values()) > 0


def test_on_text_it_was_not_fitted_to_a_repair_is_nearer_to_the_base(fresh: Fresh) -> None:
    """Of a layer's output, where heads share much: a head and its noisy copy."""
    model = fresh("llama", num_key_value_heads=6)
    with_a_copy(model, 1, source=2, copy=4)
    selection = HeadSelection.of([(1, 4)])
    ids = torch.tensor([text(200, seed=9).tokens])
    with torch.no_grad():
        whole = model(ids).logits
        with ablate(model, selection.by_layer):
            plain = model(ids).logits
        repaired = pruned(model, selection)(ids).logits
    assert (repaired - whole).norm() < 0.2 * (plain - whole).norm()


def test_layers_that_lose_everything_are_left_alone(fresh: Fresh, logits: Logits) -> None:
    gone = [(0, head) for head in range(6)]
    model = fresh("llama")
    fitted = repairer(model).repair(HeadSelection.of([*gone, (2, 1)]))
    assert list(fitted.weights) == [2]
    assert fitted.record["not_repaired"] == [0]
    assert list(fitted.record["rebuilt"]) == ["2"]
    prune_units(model, HeadSelection.of([*gone, (2, 1)]), fitted)
    assert torch.isfinite(logits(model)).all()
    with pytest.raises(SelectionError, match="nothing to repair it with"):
        repairer(fresh("llama")).check(HeadSelection.of(gone))


def test_what_cannot_be_repaired_is_refused_before_work(fresh: Fresh) -> None:
    model = fresh("llama")
    some = HeadSelection.of([(0, 1)])
    units: tuple[Unit, ...] = ("head", "neuron")
    for unit in units:
        width = projections(model, unit)[0].in_features
        chosen = some if unit == "head" else NEURONS
        with pytest.raises(TextError, match=rf"fits {width} inputs .*with a ridge of"):
            repairer(model, tokens=int(width) - 1).check(chosen)  # type: ignore[arg-type]
        told = repairer(model, tokens=2 * int(width)).check_inputs(unit)  # type: ignore[arg-type]
        assert "2.0 per input" in told[0]
        assert "with a ridge of 0.25" in told[0]
        assert repairer(model, tokens=4 * int(width)).check_inputs(unit) == []  # type: ignore[arg-type]
    short = repairer(model, tokens=100).repair(some)
    assert "2.1 per input" in short.record["warnings"][0]
    gates = HeadSelection.of([(0, 1)], gates=((1.0,) * 6,) * 3)
    with pytest.raises(SelectionError, match="Scaled heads"):
        repairer(model).check(gates)
    with pytest.raises(SelectionError, match="head 6 of layer 0 does not exist"):
        kept_inputs(model, HeadSelection.of([(0, 6)]))


def test_an_adapter_has_no_place_for_changed_weights(fresh: Fresh, tmp_path: Path) -> None:
    fresh("llama").save_pretrained(tmp_path / "base")
    selection = HeadSelection.of([(0, 1)])
    model = pruned(load(tmp_path / "base"), selection)
    with pytest.raises(CheckpointError, match="holds no weights: a repaired model"):
        save_pruned(model, tmp_path / "adapter", "adapter")
    assert not (tmp_path / "adapter").exists()
    plain = load(tmp_path / "base")
    prune_units(plain, selection)
    save_pruned(plain, tmp_path / "adapter", "adapter")  # control


def test_the_record_says_what_it_was_fitted_to(fresh: Fresh) -> None:
    model = fresh("llama")
    texts = (text(900, name="/home/me/one.txt"), text(300, seed=1, name="pydoc"))
    record = Repairer(model, texts, bos=1).repair(HeadSelection.of([(0, 1)])).record
    assert record["method"] == "least-squares"
    assert record["target"] == "own output"
    assert [(one["name"], one["tokens"], one["share"]) for one in record["texts"]] == [
        ("one.txt", 900, 0.75), ("pydoc", 300, 0.25),
    ]  # fmt: skip
    assert record["ridge"] == pytest.approx(0.5 * 48 / 1200)
    assert json.loads(json.dumps(record)) == record
    longer = Repairer(model, (text(901, name="/home/me/one.txt"), texts[1]), bos=1)
    assert same_repair(record, Repairer(model, texts, bos=1).identity("head"))
    assert not same_repair(record, longer.identity("head"))
    assert not same_repair(record, None)
    assert same_repair(None, None)


def test_a_text_is_read_once_and_in_passes_that_fit_into_memory(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    from levelhead.models import calibration as module

    model = fresh("llama")
    selection = HeadSelection.of([(0, 1), (1, 2), (2, 0)])
    read: list[int] = []
    at_once = repairer(model)
    expected = at_once.repair(selection, advance=read.append)
    assert sum(read) > 1500
    assert at_once.work(selection) == 0, "what was read is kept"
    again = at_once.repair(selection, advance=read.append)
    assert torch.equal(again.weights[2], expected.weights[2])
    width = projections(model, "head")[0].in_features
    monkeypatch.setattr(module, "MOST_BYTES", 8 * int(width) ** 2 + 1)  # type: ignore[arg-type]
    narrow = repairer(model)
    assert narrow.work(selection) == 3 * sum(read)
    one_by_one = narrow.repair(selection)
    for layer in range(3):
        assert torch.equal(one_by_one.weights[layer], expected.weights[layer])


def test_number_formats_of_the_saved_weights(fresh: Fresh) -> None:
    """Fitted in float32, written in the format that the model is saved in."""
    model, copy = fresh("llama"), fresh("llama").to(torch.bfloat16)
    selection = HeadSelection.of([(0, 1)])
    repair = repairer(model).repair(selection, copy)
    prune_units(copy, selection, repair)
    weight = output_projections(copy)[0].get_parameter("weight")
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, repair.weights[0].to(torch.bfloat16))
    from levelhead.errors import ModelError

    with pytest.raises(ModelError, match="do not fit float16"):
        write_weight(
            torch.nn.Linear(2, 1, bias=False, dtype=torch.float16),
            torch.full((1, 2), 1e6, dtype=torch.float64),
        )
