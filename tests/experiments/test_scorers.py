"""What scorers react to: known truth comes back, and the rule chooses the default that is set."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from click.testing import CliRunner

import levelhead
from levelhead.cli import cli
from levelhead.config import EMBEDDED_SCORER, RunConfig
from levelhead.errors import ConfigError, MissingExtraError, ScorerError
from levelhead.experiments.scorer_measures import (
    AUC_LIMIT,
    ScorerMeasurement,
    _reaction,
    choose_scorer,
    measure_scorer,
)
from levelhead.progress import silent
from levelhead.toxicity import load_scorer, registry
from levelhead.toxicity.controls import controls
from levelhead.toxicity.registry import ScorerFacts

PHRASES = ("a queer person", "a woman", "a man", "a deaf person")
ROUGH = {"idiot", "stupid", "hate", "crap", "shut", "damn", "filthy", "dirty", "fool"}


class Words:
    """0.1, more by what is named, 0.8 more for a control that is toxic; all times a scale."""

    cost = "cheap"

    def __init__(self, name: str, reacts: dict[str, float], scale: float = 1.0) -> None:
        self.name, self.identity, self.reacts, self.scale = name, name, reacts, scale
        self.toxic = set(controls().toxic)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        scores = [
            0.1
            + sum(rise for word, rise in self.reacts.items() if word in text)
            + 0.8 * (text in self.toxic)
            for text in texts
        ]
        return self.scale * np.array(scores)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names for which `Words` scorers may stand as built-in ones."""
    for name in ("calm", "jumpy", "faint", "deaf-to-it"):
        monkeypatch.setitem(registry.FACTS, name, ScorerFacts(offline=True))
    facts = ScorerFacts(offline=True, measures="sentiment")
    monkeypatch.setitem(registry.FACTS, "mood", facts)


def measured(name: str, scale: float = 1.0, **reacts: float) -> ScorerMeasurement:
    return measure_scorer(Words(name, reacts, scale), PHRASES, silent)


@pytest.mark.usefixtures("offline")
def test_a_planted_reaction_comes_back() -> None:
    found = measured("jumpy", queer=0.3, deaf=-0.05)
    assert found.names["a queer person"].value == pytest.approx(0.3)
    assert found.names["a deaf person"].value == pytest.approx(-0.05)
    assert found.names["a woman"].value == pytest.approx(0)
    assert found.largest == "a queer person"
    assert found.reaction.value == pytest.approx((0.3 + 0.05) / 4)
    assert found.signed.value == pytest.approx((0.3 - 0.05) / 4)
    assert found.difference.value == pytest.approx(0.8)
    assert found.relative.value == pytest.approx(0.35 / 4 / 0.8)
    assert found.floor == pytest.approx(0.1)
    assert found.auc.value == 1.0
    assert found.auc.interval.low < 1.0
    assert found.separates
    assert found.texts_per_second > 0


def test_intervals_of_a_reaction_cover_it() -> None:
    """Reactions that differ between frames, as those of real scorers do."""
    rng = np.random.default_rng(0)
    mean = rng.exponential(0.1, 40)  # clear of 0 or nearly: the noise of the mean is 0.0075
    covered, runs = 0, 400
    for _ in range(runs):
        shared = rng.normal(0, 0.02, 16)  # frames move all phrases together
        estimate, _ = _reaction(mean[:, None] + shared + rng.normal(0, 0.03, (40, 16)))
        covered += estimate.interval.low <= mean.mean() <= estimate.interval.high
    assert covered / runs >= 0.92


@pytest.mark.usefixtures("offline")
def test_the_rule_takes_the_calmest_that_separates_whatever_its_scale() -> None:
    calm, jumpy = measured("calm", queer=0.05), measured("jumpy", queer=0.3)
    faint = measured("faint", scale=0.5, queer=0.2)  # absolutely 0.1, relative to its scale 0.2
    choice = choose_scorer([jumpy, faint, calm])
    assert (choice.name, choice.runner_up) == ("calm", "faint")
    assert choice.refused == {}
    assert choice.advantage.interval.high < 0  # clearly
    assert choose_scorer([faint, jumpy]).name == "faint"
    tiny = measured("faint", scale=0.1, queer=0.05)
    assert choose_scorer([tiny, jumpy]).name == "jumpy"
    assert "insults score only 0.08 above" in choose_scorer([tiny, jumpy]).refused["faint"]


@pytest.mark.usefixtures("offline")
def test_what_may_not_be_chosen() -> None:
    blind = Words("deaf-to-it", {"the": 0.4})
    blind.toxic = set()
    reasons = choose_scorer(
        [
            measure_scorer(blind, PHRASES, silent),
            measured("mood"),
            measured("over-0.5:calm"),
            measured("somebody/classifier"),
        ]
    )
    assert reasons.name is None
    assert reasons.advantage is None
    assert "does not separate insults from harmless sentences" in reasons.refused["deaf-to-it"]
    assert f"limit {AUC_LIMIT:g}" in reasons.refused["deaf-to-it"]
    assert reasons.refused["mood"] == "it measures sentiment, not toxicity"
    assert reasons.refused["over-0.5:calm"] == "it is a form of another scorer"
    assert reasons.refused["somebody/classifier"] == "it is not part of an offline package"


@pytest.fixture(scope="module")
def found() -> dict:
    """Of the installed scorers."""
    for package in ("profanity_check", "nltk", "sklearn", "vaderSentiment"):
        pytest.importorskip(package)
    return levelhead.scorers()


def test_the_rule_picks_the_default_that_is_set(found: dict) -> None:
    """The constant of the configuration is what the measurement says today."""
    assert found["choice"]["name"] == EMBEDDED_SCORER == found["default"]
    assert RunConfig().resolved().toxicity == EMBEDDED_SCORER
    assert RunConfig(model="gpt2").resolved().toxicity == "detoxify"
    assert found["choice"]["runner_up"] == "profanity-check"
    assert found["choice"]["refused"] == {"sentiment": "it measures sentiment, not toxicity"}


def test_sentiment_is_another_measure_by_its_answers_too(found: dict) -> None:
    """It reacts least to names, and rates grief as it rates insults."""
    by = {one["name"]: one for one in found["scorers"]}
    smallest = min(by, key=lambda name: by[name]["reaction"]["mean"]["value"])
    assert smallest == "sentiment"
    assert not by["sentiment"]["controls"]["separates"]
    assert by["sentiment"]["controls"]["auc_sad"]["value"] < AUC_LIMIT
    for name in ("profanity-check", "toxicityclassifier"):
        assert by[name]["controls"]["separates"]
        assert by[name]["controls"]["sad"] < 0.3 < by[name]["controls"]["toxic"]


def test_what_is_known_of_the_scorers_is_found(found: dict) -> None:
    """The reaction of profanity-check to names, on sentences of our own."""
    by = {one["name"]: one for one in found["scorers"]}
    other = by["profanity-check"]["reaction"]
    assert "queer" in other["largest"]["word"]
    assert other["largest"] == other["words"][0]
    assert other["largest"]["value"] > 0.3
    low, high = other["mean"]["ci95"]
    assert 0 < low < other["mean"]["value"] < high
    values = [abs(word["value"]) for word in other["words"]]
    assert values == sorted(values, reverse=True)
    assert len(values) == found["sentences"]["words"] > 100
    assert np.mean(values) == pytest.approx(other["mean"]["value"])
    assert by["profanity-check"]["floor"] == pytest.approx(0.036, abs=0.002)
    assert [one["name"] for one in found["left_out"]] == ["detoxify"]


def test_a_function_and_a_composite_are_measured_beside_them() -> None:
    def shouts(texts: Sequence[str]) -> list[float]:
        return [0.9 if ROUGH & set(text.lower().split()) else 0.05 for text in texts]

    found = levelhead.scorers([shouts, "over-0.5:profanity-check"])
    one = {m["name"]: m for m in found["scorers"]}
    assert one["shouts"]["reaction"]["mean"]["value"] == 0
    assert one["shouts"]["controls"]["toxic"] > one["shouts"]["controls"]["ordinary"]
    assert one["shouts"]["licence"] == one["shouts"]["language"] == "unknown"
    assert one["over-0.5:profanity-check"]["refused_as_default"]


def half(texts: Sequence[str]) -> list[float]:
    return [0.5] * len(texts)


def test_what_is_wrong_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "levelhead.experiments.scorers"
    monkeypatch.setattr(f"{module}.measure_scorer", lambda *a: pytest.fail("measured"))
    with pytest.raises(ScorerError, match="no toxicity scorer 'no such'"):
        levelhead.scorers(["no such"])
    with pytest.raises(ScorerError, match=r"'half' gives one value, 0\.5"):
        levelhead.scorers([half])
    with pytest.raises(ScorerError, match="3 is no toxicity scorer"):
        levelhead.scorers([3])
    with pytest.raises(ConfigError, match="named twice: sentiment, sentiment"):
        levelhead.scorers(["sentiment", "sentiment"])


def test_a_missing_extra_is_said_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: str) -> None:
        raise MissingExtraError("needs pip install 'levelhead[toxicityclassifier]'")

    monkeypatch.setitem(registry.SCORERS, "toxicityclassifier", missing)
    found = levelhead.scorers()
    why = {one["name"]: one["why"] for one in found["left_out"]}
    assert "pip install 'levelhead[toxicityclassifier]'" in why["toxicityclassifier"]
    assert found["choice"]["name"] == "profanity-check"
    with pytest.raises(MissingExtraError):
        levelhead.scorers(["toxicityclassifier"])


def test_every_built_in_scorer_has_its_facts() -> None:
    assert set(registry.FACTS) == set(registry.SCORERS)
    for facts in registry.FACTS.values():
        assert "unknown" not in (facts.language, facts.licence)
        assert facts.offline == (facts.extra is not None)
    assert load_scorer(f"masked:{EMBEDDED_SCORER}", terms=["x"]).name.startswith("masked:")
    assert registry.scorer_facts("over-0.5:sentiment").measures == "sentiment"


def test_the_command(found: dict) -> None:
    done = CliRunner().invoke(cli, ["scorers", "--json", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    for one in (*said["scorers"], *(known := found["scorers"])):
        one.pop("texts_per_second", None)
    assert said["scorers"] == known
    shown = CliRunner().invoke(cli, ["scorers", "--quiet"], catch_exceptions=False)
    words = " ".join(shown.stdout.split())
    assert "the embedded model's default is toxicityclassifier" in words
    assert "a queer person" in words
    assert "detoxify is left out" in words
