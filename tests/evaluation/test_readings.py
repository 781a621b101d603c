"""Echo and mentions on simulated texts of known truth."""

from dataclasses import dataclass

import numpy as np
import pytest

from levelhead.evaluation.mentions import EVERY, named, own_group_mentions
from levelhead.evaluation.pairs import Toxicities, echo
from levelhead.metrics.differences import harmless_floor
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.metrics.verdicts import Evidence, verdicts
from levelhead.records import Prompt
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.toxicity import Masker

TEMPLATES, GROUPS, EACH = 40, 3, 4


def codes() -> tuple[np.ndarray, np.ndarray]:
    """Template and subgroup of each text."""
    grid = np.indices((TEMPLATES, GROUPS, EACH)).reshape(3, -1)
    return grid[0], grid[1]


@dataclass(frozen=True)
class Texts:
    """Both models' toxicities by both readings."""

    masked: Toxicities
    plain: Toxicities


def world(seed: int, said: tuple[float, float], harm: tuple[float, float]) -> Texts:
    """Group 0 is named in a share `said` of texts, by base and pruned; the name adds 0.4 to plain
    toxicity. Texts about it are toxic (0.5) in a share `harm` more than 0.1, whoever reads them.
    Half of the texts come of random numbers that the models share, as in an evaluation."""
    rng = np.random.default_rng(seed)
    template, group = codes()
    read: dict[str, list[np.ndarray]] = {"masked": [], "plain": []}
    shared, common = rng.random(len(group)), rng.random(len(group)) < 0.5
    for model in (0, 1):
        share = 0.1 + harm[model] * (group == 0)
        drawn = np.where(common, shared, rng.random(len(group)))
        toxic = 0.5 * (drawn < share) + 0.02 * rng.random(len(group))
        name = (group == 0) & (rng.random(len(group)) < said[model])
        read["masked"].append(toxic)
        read["plain"].append(toxic + 0.4 * name)

    def pair(kind: str) -> Toxicities:
        base, pruned = read[kind]
        return Toxicities(
            base=base, pruned=pruned, subgroup=group, template=template, num_subgroups=GROUPS
        )

    return Texts(pair("masked"), pair("plain"))


def test_echo_is_the_difference_of_the_two_biases() -> None:
    one = world(0, (0.5, 0.0), (0.2, 0.2))
    found = echo(one.masked, one.plain, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    assert found.difference.value == pytest.approx(found.pruned.value - found.base.value)
    assert found.difference.value == pytest.approx(
        one.plain.difference(rng).value - one.masked.difference(rng).value
    )
    assert found.pruned.value == 0, "control: nobody is named, so there is nothing to echo"
    assert found.base.interval.low > 0
    assert found.difference.interval.high < 0


def test_a_harm_that_falls_is_no_echo() -> None:
    """Control: names stay, the toxicity about the group goes."""
    one = world(0, (0.3, 0.3), (0.3, 0.0))
    found = echo(one.masked, one.plain, np.random.default_rng(0))
    assert one.masked.difference(np.random.default_rng(0)).interval.high < 0
    assert found.difference.interval.high > 0


def test_the_interval_of_the_change_of_echo_holds_the_truth() -> None:
    """Group 0 of three stands apart: bias is 4/3 of its distance from the others."""
    truth = -4 / 3 * 0.4 * 0.3
    held = 0
    for seed in range(40):
        one = world(seed, (0.4, 0.1), (0.3, 0.3))
        found = echo(one.masked, one.plain, np.random.default_rng(seed)).difference
        held += found.interval.low <= truth <= found.interval.high
    assert held / 40 >= 0.87


def verdict_of(seed: int, said: tuple[float, float], harm: tuple[float, float]) -> str:
    """The word of both readings together, as an evaluation gives it."""
    one, rng = world(seed, said, harm), np.random.default_rng(seed)
    masked, plain = one.masked, one.plain
    evidence = Evidence(
        difference=masked.tested(rng, draws=1000),
        factor=masked.common_factor(harmless_floor(0.0, masked.base, masked.pruned), rng),
        toxicity=linear_difference_interval(masked.pruned - masked.base, masked.template),
        plain=plain.tested(rng, draws=1000),
        echo=echo(masked, plain, rng).difference,
    )
    return verdicts({"axis": evidence})["axis"].verdict


@pytest.mark.parametrize("seed", range(5))
def test_losing_a_copied_name_is_called_echo(seed: int) -> None:
    """What a head that copies the group's word does when it goes: the word goes, nothing else."""
    assert verdict_of(seed, (0.5, 0.0), (0.25, 0.25)) == "echo only"


@pytest.mark.parametrize("seed", range(5))
def test_losing_toxic_words_about_one_group_is_called_lower(seed: int) -> None:
    """What a head that writes them does when it goes: names stay."""
    assert verdict_of(seed, (0.3, 0.3), (0.4, 0.0)) == "lower"


def test_losing_neither_is_called_nothing() -> None:
    told = [verdict_of(seed, (0.3, 0.3), (0.25, 0.25)) for seed in range(8)]
    assert told.count("not distinguishable") >= 7


WORDS = ("queer", "woman", "man")
NAMES = {
    "a": Masker({"queer": "adjective", "queers": "plural"}),
    "b": Masker({"woman": "singular", "women": "plural"}),
    "c": Masker({"man": "singular", "men": "plural"}),
}


def problem() -> BiasProblem:
    prompts = [
        Prompt(
            id=f"{group}/{t}", text=f"The {word} number {t}", axis="x", subgroup=group,
            template=f"t{t}", descriptor=word, split="test",
        )
        for t in range(TEMPLATES)
        for group, word in zip(NAMES, WORDS, strict=True)
    ]  # fmt: skip
    return BiasProblem(
        model=None, tokenizer=None, scorer=None, prompts=tuple(prompts),
        prompt_ids=((),) * len(prompts), toxicity_input="continuation", seed=0, samples=EACH,
        new_tokens=1, batch_size=None, names=NAMES,
    )  # type: ignore[arg-type]  # fmt: skip


def written(seed: int, share: dict[str, float]) -> SampledTexts:
    rng = np.random.default_rng(seed)
    asked = problem()
    prompt = np.repeat(np.arange(len(asked.prompts)), EACH)
    groups = [asked.prompts[p].subgroup for p in prompt]
    word = dict(zip(NAMES, WORDS, strict=True))
    texts = [
        f"and the {word[g].upper()} went" if rng.random() < share[g] else "and so they went"
        for g in groups
    ]
    return SampledTexts(
        prompt=prompt, sample=np.tile(np.arange(EACH), len(asked.prompts)),
        tokens=((),) * len(texts), texts=tuple(texts), toxicity=np.zeros(len(texts)),
    )  # fmt: skip


def test_a_group_that_is_no_longer_named_is_found() -> None:
    base = written(0, {"a": 0.4, "b": 0.3, "c": 0.3})
    pruned = written(1, {"a": 0.05, "b": 0.3, "c": 0.3})
    found = own_group_mentions(problem(), base, pruned)
    assert found is not None
    assert found.fell == (EVERY, "a")
    one = found.by_subgroup["a"]
    assert one.base.value == pytest.approx(0.4, abs=0.12)
    assert one.difference.interval.high < 0
    assert found.by_subgroup["b"].difference.interval.high > 0


def test_groups_that_are_named_as_before_are_not() -> None:
    share = {"a": 0.4, "b": 0.3, "c": 0.3}
    told = 0
    for seed in range(30):
        found = own_group_mentions(problem(), written(seed, share), written(100 + seed, share))
        assert found is not None
        told += bool(found.fell)
    assert told / 30 <= 0.1


def test_another_groups_name_is_no_mention() -> None:
    said = named(NAMES, ["a", "b", "b", "z"], ["a woman", "Women's", "a woman-run bar", "a man"])
    assert said.tolist() == [0, 1, 1, 0]
