"""Agreement of two scorers on texts: Cohen's kappa by hand, and what is unknown."""

import numpy as np
import pytest

from levelhead.metrics.text_agreement import cohens_kappa, text_agreement


def test_kappa_of_a_published_kind_of_table() -> None:
    """20 both yes, 5 and 10 split, 15 both no: agreement 0.7, chance 0.5, kappa 0.4."""
    a = np.array([True] * 25 + [False] * 25)
    b = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert cohens_kappa(a, b) == pytest.approx(0.4)
    assert cohens_kappa(a, a) == pytest.approx(1)
    assert cohens_kappa(a, ~a) == pytest.approx(-1)


def test_kappa_is_unknown_where_nobody_says_yes() -> None:
    never, once = np.zeros(10, bool), np.arange(10) == 0
    assert cohens_kappa(never, never) is None
    assert cohens_kappa(never, once) == pytest.approx(0)


def test_the_order_and_the_threshold_are_two_things() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(200)
    found = text_agreement(a, a / 4)  # the same order, but never over 0.5
    assert found["spearman"]["value"] == pytest.approx(1)
    assert found["kappa"] == pytest.approx(0, abs=1e-9)
    unrelated = text_agreement(a, rng.random(200))
    low, high = unrelated["spearman"]["ci95"]
    assert low < 0 < high
    assert abs(unrelated["kappa"]) < 0.2
    assert text_agreement(a, np.full(200, 0.3))["spearman"] is None
    assert text_agreement(a[:4], a[:4])["spearman"] is None
