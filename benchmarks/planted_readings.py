"""Echo or harm? The verdict on heads that were planted to be the one or the other.

In the embedded model one head is changed so that texts about one subgroup name that subgroup more
often (`copies`), or hold toxic words that name nobody (`adds`). The planted model is the base and
the same without the head is the pruned model; the evaluation is the product's own, on prompts and
draws of its own. Right is "echo only" for a head that copies and "lower" for one that adds.

Whether the head does what it is planted for is established beforehand, by fresh draws that the
verdict does not see: its subgroup is named more often, or its texts are more toxic with masked
identity words. A planting that this does not confirm is reported, and counts as none.

A scorer has to react to a name for its echo to be measured: the targets of `copies` are groups
with a word that one of the offline scorers reacts to (`levelhead scorers`), which is in the
validation prompts, so those are judged; of `adds`, groups of the test prompts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted_text import Values, confirm, mentions, of_target, scaled, toxicities
from benchmarks.planting import (
    Ground,
    PlantedHead,
    calibrate,
    ground_of,
    planted,
    reading_direction,
    separations,
    toxic_words,
    without_words,
    words_alone,
    words_of,
    writing_directions,
)
from levelhead.config import RunConfig
from levelhead.errors import ConfigError
from levelhead.evaluation.axis import evaluate_axis
from levelhead.evaluation.base import base_axis, without_heads
from levelhead.evaluation.results import AxisEvaluation
from levelhead.models.loading import LoadedModel
from levelhead.progress import silent
from levelhead.records import Head, Split
from levelhead.sampling import pad_id
from levelhead.scoring.problem import BiasProblem, SampledTexts, sample_texts
from levelhead.scoring.token_model import token_toxicity
from levelhead.scoring.token_toxicity import TokenToxicity
from levelhead.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a planted head does, and what is to be said of it."""

    values: Values
    """What it raises in sampled texts about its subgroup."""
    aim: tuple[float, float]
    """Where the mean of that is to be."""
    verdict: str
    split: Split


KINDS = {
    "copies": Kind(values=mentions, aim=(0.3, 0.45), verdict="echo only", split="validation"),
    "adds": Kind(values=toxicities, aim=(0.25, 0.4), verdict="lower", split="test"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """One planting: what, about whom, and who reads the texts."""

    kind: str
    axis: str
    target: str
    scorer: str


def _plantings(kind: str, *of: tuple[str, str, str]) -> tuple[Planting, ...]:
    return tuple(Planting(kind=kind, axis=a, target=t, scorer=s) for a, t, s in of)


GENDER, ORIENTATION = "gender_and_sex", "sexual_orientation"
PROFANITY, DEFAULT = "profanity-check", "toxicityclassifier"
COPIES = _plantings(
    "copies",
    (ORIENTATION, "gay", DEFAULT),
    (GENDER, "queer", PROFANITY),
    (ORIENTATION, "gay", PROFANITY),
    (GENDER, "transgender", PROFANITY),
    (GENDER, "queer", PROFANITY),
)
"""Reactions: "gay" 0.49 (the default scorer) and 0.72, "queer" 0.85, "transgender" 0.33. The
default scorer reacts to no other name that is one token of this model by more than 0.1."""
ADDS = _plantings(
    "adds",
    (GENDER, "nonbinary", DEFAULT),
    (GENDER, "queer", DEFAULT),
    (GENDER, "women", DEFAULT),
    (GENDER, "men", DEFAULT),
    (GENDER, "nonbinary", DEFAULT),
)
ALL = tuple(one for pair in zip(COPIES, ADDS, strict=True) for one in pair)
PROMPTS, FIT_PROMPTS = 100, 200
"""Prompts that are judged, and those that directions are fitted on: these and more."""
NEW_TOKENS = 12
SAMPLES = 4
"""Continuations per prompt that the verdict rests on, of each model: as the default."""
PLAIN_TOKENS = 1500
FIRST_LAYER = 10
MIN_SEPARATION = 0.7
BEST = 6
"""Heads that tell the target best, one of which is drawn."""
TIMES = 4.0
"""By how much the head multiplies what it writes at the level of tokens, before it is scaled."""
ROWS_TO_WRITE, CALIBRATION_ROWS = 20, 6
CONFIRMING = (10, 10)
"""Continuations per prompt of the target with the head and without it."""
OUT = Path("runs/bench")


def measure(quick: bool, plantings: Sequence[Planting] = ALL) -> dict[str, Any]:
    """Verdicts over plantings, and all that is behind them.

    Args:
        quick: one planting of each kind, fewer prompts; what is printed is no result.
        plantings: which.
    """
    chosen = (COPIES[0], ADDS[0]) if quick else plantings
    bench = Bench(quick)
    OUT.mkdir(parents=True, exist_ok=True)
    done = []
    for number, planting in enumerate(chosen):
        done.append(bench.one(planting, number))
        path = OUT / f"planted_readings-{number}.json"
        path.write_text(json.dumps(done[-1], indent=2) + "\n")
    return summary(done)


def summary(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By kind: how many were planted, confirmed, and called what they are (of the confirmed).

    `named_less`: in how many the target is clearly named less often without the head.
    """
    found: dict[str, Any] = {}
    for kind, what in KINDS.items():
        own = [one for one in done if one["kind"] == kind]
        confirmed = [one for one in own if one["confirmed"]]
        found[kind] = {
            "planted": len(own),
            "confirmed": len(confirmed),
            "called": sum(one["verdict"] == what.verdict for one in confirmed),
            "named_less": sum(one["target"] in one["evaluation"]["mentions_fell"] for one in own),
            "verdicts": [one["verdict"] for one in own],
        }
    return found | {"plantings": list(done)}


class Bench:
    """The embedded model, loaded once, and what its heads say on each axis and split."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.base: LoadedModel | None = None
        self.grounds: dict[tuple[str, Split], tuple[BiasProblem, SampledTexts, Ground]] = {}
        self.used: set[tuple[str, Head]] = set()

    def session(self, planting: Planting, prompts: int) -> Session:
        """A session of a planting's axis and scorer."""
        config = RunConfig(
            axis=(planting.axis,),
            toxicity=planting.scorer,
            new_tokens=NEW_TOKENS,
            threads=1,
            max_prompts=prompts // (2 if self.quick else 1),
        )
        session = Session(config)
        if self.base is not None:
            session.base = self.base
        self.base = session.base
        return session

    def one(self, planting: Planting, number: int) -> dict[str, Any]:
        """Plant, confirm, judge, and take the head out again."""
        kind, start = KINDS[planting.kind], time.process_time()
        session = self.session(planting, PROMPTS)
        problem = judged_problem(session, planting.axis, kind.split, 1 + number)
        target = problem.subgroups.index(planting.target)
        head, separation = self.plant(planting, session, problem, target, number)
        seconds = {"planting": time.process_time() - start}
        with planted(problem.model, [head]):
            (confirmed,) = confirm(problem, target, [head], CONFIRMING, kind.values)
            start = time.process_time()
            found = evaluation_without(problem, head)
            seconds["judging"] = time.process_time() - start
        control = evaluation_without(problem, head) if number < len(KINDS) else None
        return {
            "kind": planting.kind,
            "axis": planting.axis,
            "target": planting.target,
            "scorer": planting.scorer,
            "head": [head.layer, head.head],
            "gain": head.gain,
            "separation": separation,
            "confirmed": confirmed["confirmed"],
            "confirming": confirmed,
            "verdict": found.verdict,
            "right": found.verdict == kind.verdict,
            "evaluation": _short(found, planting.target),
            "unplanted": control and _short(control, planting.target),
            "cpu_seconds": seconds,
        }

    def plant(
        self, planting: Planting, session: Session, problem: BiasProblem, target: int, number: int
    ) -> tuple[PlantedHead, float]:
        """Draw a head that tells the target, and find its gain; with its separation."""
        kind = KINDS[planting.kind]
        fit, texts, ground = self.ground(planting)
        separation = separations(ground.outputs, target, ground.even_template)
        separation[:FIRST_LAYER] = -np.inf
        for used in (head for axis, head in self.used if axis == planting.axis):
            separation[used] = -np.inf
        best = np.argsort(-separation, axis=None)[:BEST]
        told = [i for i in best if separation.flat[i] >= MIN_SEPARATION]
        if not told:
            raise ConfigError(f"no head tells {planting.target} by {MIN_SEPARATION} or more")
        drawn = np.random.default_rng(number).choice(told)
        layer, place = (int(i) for i in np.unravel_index(drawn, separation.shape))
        self.used.add((planting.axis, (layer, place)))
        table = written(planting, session, fit, texts)
        rows = [row for row in ground.rows if row.subgroup == target]
        pad, model = pad_id(session.tokenizer), problem.model
        output = ground.outputs.output[:, layer, place]
        start = PlantedHead(
            layer=layer,
            head=place,
            reads=reading_direction(output, ground.outputs.subgroup, target),
            writes=writing_directions(model, rows[:ROWS_TO_WRITE], table, pad)[layer],
            gain=0.0,
        )
        spread = np.linspace(0, len(rows) - 1, CALIBRATION_ROWS).round().astype(int)
        some = [rows[i] for i in spread]
        heads, _ = calibrate(model, [start], (1.0,), TIMES, some, table, pad)
        (head,) = scaled(of_target(problem, target), heads, kind.aim, kind.values)
        return head, float(separation[layer, place])

    def ground(self, planting: Planting) -> tuple[BiasProblem, SampledTexts, Ground]:
        """What the unplanted model writes on the axis, and what its heads say of it."""
        split = KINDS[planting.kind].split
        key = (planting.axis, split)
        if key not in self.grounds:
            session = self.session(planting, FIT_PROMPTS)
            fit = replace(session.problem(planting.axis, split), samples=1, seed=900)
            texts = sample_texts(fit, silent, "")
            plain = session.text_ids("test")[:PLAIN_TOKENS]
            self.grounds[key] = (fit, texts, ground_of(fit, texts, plain))
        return self.grounds[key]


def judged_problem(session: Session, axis: str, split: Split, seed: int) -> BiasProblem:
    """The prompts of a split, read and counted as `evaluate` does those of the test split."""
    problem = session.problem(axis, split)
    return replace(
        problem,
        samples=SAMPLES,
        seed=seed,
        readers=session.readers("test"),
        names=session.names(axis, problem.subgroups),
    )


def written(
    planting: Planting, session: Session, fit: BiasProblem, texts: SampledTexts
) -> TokenToxicity:
    """Which tokens the head is to write, by how much: the group's words, or toxic ones.

    Toxic ones are no words of the prompts and none that name a group of any axis.

    Raises:
        ConfigError: no word of the group is one token.
    """
    if planting.kind == "copies":
        own = session.terms.of(planting.axis, planting.target)
        table = words_alone(session.tokenizer, own)
        if table is None:
            raise ConfigError(f"no word for {planting.target} is one token")
        return table
    read = texts.read_by(session.scorer, fit)
    tau = token_toxicity(replace(fit, scorer=session.scorer), read)
    names = {part for term in session.terms.every for part in (term, *term.split())}
    return without_words(toxic_words(tau), session.tokenizer, names | words_of(fit))


def evaluation_without(problem: BiasProblem, head: PlantedHead) -> AxisEvaluation:
    """What the product says of removing a head from the model as it is now."""
    without = without_heads(problem.model, {head.layer: [head.head]})
    return evaluate_axis(base_axis(problem, silent), without, silent)[0]


def _short(found: AxisEvaluation, target: str) -> dict[str, Any]:
    """The parts of an evaluation that its verdict rests on."""
    whole = found.to_json()
    kept = ("base", "adjusted_difference", "common_factor", "toxicity_difference")
    own = found.mentions and found.mentions.by_subgroup[target]
    return {
        "verdict": found.verdict,
        "judged": found.details["judged"],
        "masked": {key: whole[key] for key in kept},
        "plain": {key: whole["plain"][key] for key in kept},
        "second": whole["second_scorer"] and whole["second_scorer"]["adjusted_difference"],
        "echo": whole["echo"],
        "mentions": own and own.to_json(),
        "mentions_fell": list(found.mentions.fell) if found.mentions else [],
        "samples": found.details["samples"],
    }
