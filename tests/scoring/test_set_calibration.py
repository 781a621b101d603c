"""The level of sets' costs: it undoes what is wrong with the form, and holds for other sets."""

import numpy as np
import pytest
import torch

from levelhead.models.architectures import attention_modules
from levelhead.models.gates import gated
from levelhead.progress import silent
from levelhead.scoring.curvature import curvature, derivatives
from levelhead.scoring.exact import exact
from levelhead.scoring.set_calibration import calibrated
from levelhead.set_cost import SetCost
from levelhead.testing import tiny_model

SHAPE = (4, 6)


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    """Heads write ten times as much as in other tiny models, so that sets are not small."""
    found = tiny_model("llama", num_layers=4, num_heads=6, num_key_value_heads=6)
    found.requires_grad_(False)
    for attention in attention_modules(found):
        attention.o_proj.weight *= 10
    return found


@pytest.fixture(scope="module")
def windows(model) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Text that the model writes: there the NLL of a set rises by its KL, on average."""
    noise = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (16, 1), generator=noise)
    with torch.inference_mode():
        for _ in range(63):
            p = model(input_ids=ids).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(p, 1, generator=noise)], 1)
    return ids.clone()


@pytest.fixture(scope="module")
def screen(model, windows):  # type: ignore[no-untyped-def]
    return derivatives(model, windows, silent, 0)


def calibrate(model, windows, screen, cost: SetCost, gamma: float = 0.3):  # type: ignore[no-untyped-def]
    of = (screen.gradient, screen.clipped_fisher)
    change = screen.changes(1.0).mean(0)
    return calibrated(model, windows, *of, cost, change, silent, gamma=gamma, seed=0)


@torch.inference_mode()
def measured(model, windows, x) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """(KL, dNLL) per token of a set, on the windows that F is made of."""
    p = model(input_ids=windows).logits[:, :-1].double().log_softmax(-1)
    with gated(model, torch.tensor(1 - x).float().view(SHAPE)):
        q = model(input_ids=windows).logits[:, :-1].double().log_softmax(-1)
    nll = (p - q).gather(-1, windows[:, 1:, None]).mean()
    return float((p.exp() * (p - q)).sum(-1).mean()), float(nll)


def test_a_form_of_the_wrong_size_is_put_right(model, windows, screen) -> None:  # type: ignore[no-untyped-def]
    cost = screen.cost(1.0)
    found, about = calibrate(model, windows, screen, cost)
    third = SetCost(fisher=cost.fisher / 3, slope=cost.slope, calibration=9.0)
    again, about_third = calibrate(model, windows, screen, third)
    assert about_third["set_level"] == pytest.approx(3 * about["set_level"])
    assert again.fisher == pytest.approx(found.fisher)
    assert again.calibration == pytest.approx(found.calibration)
    assert about["calibration_sets"] == 8
    assert 0 < about["set_level_stderr"] < about["set_level"]


def test_it_holds_for_other_sets(model, windows, screen) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    sets = np.zeros((6, 24))
    for row in sets:
        row[rng.choice(24, 4, replace=False)] = 1
    kl, nll = np.array([measured(model, windows, x) for x in sets]).T
    found, _ = calibrate(model, windows, screen, screen.cost(1.0))
    assert found.kl(sets).sum() == pytest.approx(kl.sum(), rel=0.35)
    assert found.nll(sets).sum() == pytest.approx(nll.sum(), rel=0.5)
    wrong = SetCost(fisher=found.fisher / 3, slope=found.slope, calibration=found.calibration)
    assert abs(wrong.kl(sets).sum() / kl.sum() - 1) > 0.35  # control


@pytest.mark.parametrize("estimator", [curvature, exact])
def test_estimators_say_what_they_found(model, windows, estimator) -> None:  # type: ignore[no-untyped-def]
    found = estimator(model, windows, silent, 0, 0.3)
    assert found.diagnostics["calibration_sets"] == 8
    assert found.diagnostics["set_calibration"] == found.cost.calibration


def test_without_unprotected_heads_the_form_stays(model, windows, screen) -> None:  # type: ignore[no-untyped-def]
    cost = screen.cost(1.0)
    found, about = calibrate(model, windows, screen, cost, gamma=1.0)
    assert found is cost
    assert about["set_level"] == 1.0
    assert about["calibration_sets"] == 0
