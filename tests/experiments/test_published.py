"""The published score tables: what axis correlations and heads at a glance say of them."""

import json
from pathlib import Path

import pytest

from levelhead.data.holistic_bias import holistic_bias_prompts
from levelhead.experiments.axes import axes
from levelhead.experiments.glance import glance
from levelhead.metrics.attenuation import MIN_TO_CORRECT

SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLES, HOLISTIC_BIAS = SHARED / "published_head_scores", SHARED / "holistic_bias_v1.1"
MODELS = ["distilgpt2", "gpt2", "EleutherAI_gpt-neo-1.3B"]

pytestmark = pytest.mark.skipif(
    not TABLES.is_dir(), reason="the published score tables are not beside the project"
)


@pytest.mark.parametrize("model", ["distilgpt2", "gpt2"])
def test_religion_is_noise_in_the_published_tables(model: str) -> None:
    """Its ranking does not repeat and correlates with no axis; control: other axes do both."""
    found = axes(TABLES / f"{model}_by_seed.csv")
    reliability = found["reliability"][f"{model}_by_seed"]
    assert reliability["religion"] < 0.1
    assert max(reliability.values()) > MIN_TO_CORRECT
    excluded = []
    for row in found["correlations"]:
        low, high = row["spearman"]["ci95"]
        if "religion" in (row["a"], row["b"]):
            assert low < 0 < high
            assert row["corrected"] is None
        else:
            excluded.append(low > 0)
    assert sum(excluded) >= 5


def test_religion_has_one_bucket_in_holistic_bias_and_descriptors_here() -> None:
    buckets = json.loads((HOLISTIC_BIAS / "descriptors.json").read_text())
    assert list(buckets["religion"]) == ["all"]
    assert len(buckets["gender_and_sex"]) > 1  # control
    prompts = holistic_bias_prompts(["religion"], HOLISTIC_BIAS, nouns=[""])
    subgroups = {prompt.subgroup for prompt in prompts}
    assert "all" not in subgroups
    assert len(subgroups) > 10


def test_published_correlations_are_attenuated() -> None:
    """Corrected, DistilGPT-2's axes agree far better than they seem to."""
    found = axes(TABLES / "distilgpt2_by_seed.csv", TABLES / "gpt2_by_seed.csv")
    for row in found["correlations"]:
        if row["corrected"] is not None:
            assert abs(row["corrected"]["raw"]) > 1.3 * abs(row["spearman"]["value"])
    assert len(found["differences"]) == 10
    assert not any(row["differ"] for row in found["differences"])


@pytest.mark.parametrize("model", MODELS)
def test_published_tables_at_a_glance(model: str) -> None:
    found = glance(TABLES / f"{model}.csv")
    assert len(found["axes"]) == 5
    assert 0.05 < found["critical"]["share"]["value"] < 0.35
    assert found["critical"]["share"]["ci95"] is None
    assert len(found["gamma"]) == 50
    religion, gender = (found["distributions"]["bias"][a] for a in ("religion", "gender_and_sex"))
    assert religion["base"] < 0.1 * gender["base"]


def test_a_table_is_compared_without_correction() -> None:
    found = axes(*(TABLES / f"{model}.csv" for model in MODELS))
    assert {row["corrected"] for row in map(dict, found["correlations"])} == {None}
    assert any(row["differ"] for row in found["differences"])  # a bimodal run among them
