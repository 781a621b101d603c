"""Do float32 and bfloat16 choose the same heads, at what speed? Against what two seeds agree on.

One seed is scored in both formats, another in float32: heads of FASP's sets, z_ppl, its protected
heads and z_bias of "the other format" beside those of "the other seed". The other format has other
texts, too: rounding flips draws, and texts part from there. (`same_texts` tells the two apart:
the texts of one format read in the other.) Then perplexity and KL of the same sets of heads, read
in each format. Formats take turns, so that what else the machine does slows both; times are CPU
seconds.
Finished parts are kept in runs/bench/dtype/; delete the folder to measure again.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.evaluation.base import without_heads
from levelhead.evaluation.divergence import compare_on_text
from levelhead.models.loading import load_config
from levelhead.models.number_format import calibrated
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable, bias_metric
from levelhead.scoring import PPL_ESTIMATORS
from levelhead.scoring.effects import axis_effects
from levelhead.scoring.perplexity_effects import text_windows
from levelhead.scoring.problem import SampledTexts, sample_texts
from levelhead.scoring.token_gradient import token_gradient
from levelhead.selection import select_heads
from levelhead.selection.rules import protected_heads
from levelhead.session import Session

AXIS = "gender_and_sex"
SETS = ((0.3, 0.1), (0.7, 0.05))
"""(gamma, alpha): the default, and the small set of the README."""
RUNS = (("float32", 0), ("bfloat16", 0), ("float32", 1), ("bfloat16", 1))
FOLDER = Path("runs/bench/dtype")
Json = dict[str, Any]


def measure(quick: bool) -> Json:
    """What the formats agree on, what seeds agree on, and CPU seconds of each format."""
    prompts, tokens = (100, 8192) if quick else (400, 16_384)
    name = f"{prompts}_{tokens}"
    found = {
        (dtype, seed): keep(f"{name}_{dtype}_{seed}", partial(scored, dtype, seed, prompts, tokens))
        for dtype, seed in RUNS
    }
    same = [
        keep(
            f"{name}_{own}_{seed}_read_in_{other}",
            partial(reread, other, seed, found[own, seed], prompts, tokens),
        )
        for own, seed, other in (("float32", 0, "bfloat16"), ("bfloat16", 1, "float32"))
    ]
    read = {
        dtype: keep(f"{name}_read_{dtype}", partial(read_sets, dtype, found, prompts, tokens))
        for dtype in ("float32", "bfloat16")
    }
    calibration = calibrated(load_config(_session("float32", 0, prompts, tokens).base_path))
    seconds = {
        dtype: {
            part: float(np.mean([found[dtype, seed]["cpu_seconds"][part] for seed in (0, 1)]))
            for part in found[dtype, 0]["cpu_seconds"]
        }
        for dtype in ("float32", "bfloat16")
    }
    return {
        "prompts": prompts,
        "text_tokens": tokens,
        "calibration": calibration.to_json(),
        "other_seed": agreement(found["float32", 0], found["float32", 1]),
        "other_format": agreement(found["float32", 0], found["bfloat16", 0]),
        "other_format_seed_1": agreement(found["float32", 1], found["bfloat16", 1]),
        "other_seed_in_bfloat16": agreement(found["bfloat16", 0], found["bfloat16", 1]),
        "same_texts": [
            agreement(found["float32", 0], same[0]),
            agreement(found["bfloat16", 1], same[1]),
        ],
        "sets_read": read,
        "cpu_seconds": seconds,
        "times_less_cpu": {
            part: seconds["float32"][part] / seconds["bfloat16"][part]
            for part in seconds["float32"]
        },
    }


def keep(name: str, make: Callable[[], Json]) -> Json:
    """A part's JSON, made once."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        runs.write_text(path, json.dumps(make()) + "\n")
    found: Json = json.loads(path.read_text())
    return found


def scored(dtype: str, seed: int, prompts: int, tokens: int) -> Json:
    """Effects of every head, the texts they rest on, and CPU seconds by part."""
    session = _session(dtype, seed, prompts, tokens)
    problem, seconds = session.problem(AXIS, "validation"), {}
    start = _cpu()
    windows = text_windows(session.text_ids("validation"), session.base.model, tokens)
    ppl = PPL_ESTIMATORS["curvature"](session.base.model, windows, silent, seed, SETS[0][0])
    seconds["perplexity"], start = _cpu() - start, _cpu()
    base = sample_texts(problem, silent, "")
    seconds["sampling"], start = _cpu() - start, _cpu()
    effects = axis_effects(problem, base, token_gradient(problem, base, silent))
    seconds["bias"] = _cpu() - start
    return {
        "z_ppl": ppl.effect.tolist(),
        "z_bias": effects.effect.tolist(),
        "reliability": effects.reliability,
        "used": effects.used.tolist(),
        "calibration_c": ppl.diagnostics["calibration"],
        "tokens": [list(row) for row in base.tokens],
        "cpu_seconds": seconds | {"all": sum(seconds.values())},
    }


def reread(dtype: str, seed: int, first: Json, prompts: int, tokens: int) -> Json:
    """Effects on bias in one format from texts that the other wrote; z_ppl stays the other's."""
    session = _session(dtype, seed, prompts, tokens)
    problem = session.problem(AXIS, "validation")
    own = tuple(tuple(row) for row in first["tokens"])
    pairs = [problem.texts(i, row) for i, row in enumerate(own)]
    base = SampledTexts(
        prompt=np.arange(len(own)),
        sample=np.zeros(len(own), dtype=int),
        tokens=own,
        texts=tuple(text for text, _ in pairs),
        toxicity=np.array(problem.scorer([read for _, read in pairs])),
    )
    effects = axis_effects(problem, base, token_gradient(problem, base, silent))
    return first | {"z_bias": effects.effect.tolist()}


def read_sets(dtype: str, found: dict[tuple[str, int], Json], prompts: int, tokens: int) -> Json:
    """Perplexity and KL of float32's sets and of bfloat16's, read in one format."""
    session = _session(dtype, 0, prompts, tokens)
    names, variants = ["no head"], [without_heads(session.base.model, {})]
    for of in ("float32", "bfloat16"):
        for gamma, alpha in SETS:
            heads = HeadSelection.of(sorted(chosen(found[of, 0], gamma, alpha))).by_layer
            names.append(f"{of}: gamma {gamma:g}, alpha {alpha:g}")
            variants.append(without_heads(session.base.model, heads))
    compared = compare_on_text(session, session.base.model, variants, "test", silent, 4096)
    return {
        name: {
            "perplexity_base": one.base.perplexity,
            "perplexity": one.other.perplexity,
            "kl": one.kl.value,
        }
        for name, one in zip(names, compared, strict=True)
    }


def agreement(one: Json, other: Json) -> Json:
    """Shares of heads in common and rank correlations of two scorings of the same model."""
    out: Json = {
        f"{key}_spearman": float(
            stats.spearmanr(np.ravel(one[key]), np.ravel(other[key])).statistic
        )
        for key in ("z_ppl", "z_bias")
    }
    for gamma, alpha in SETS:
        own = [chosen(found, gamma, alpha) for found in (one, other)]
        kept = [protected_heads(_table(found), gamma) for found in (one, other)]
        out[f"gamma {gamma:g}, alpha {alpha:g}"] = {
            "heads": len(own[0]),
            "in_common": len(own[0] & own[1]) / len(own[0]),
            "in_common_by_chance": alpha / (1 - gamma),
            "protected_in_common": float((kept[0] & kept[1]).sum() / kept[0].sum()),
        }
    return out


def chosen(found: Json, gamma: float, alpha: float) -> set[tuple[int, int]]:
    """The heads that FASP takes."""
    selection = select_heads(_table(found), axis=AXIS, gamma=gamma, alpha=alpha)
    return {(layer, head) for layer, head in selection.heads}


def _table(found: Json) -> ScoreTable:
    effects = {PPL: np.array(found["z_ppl"]), bias_metric(AXIS): np.array(found["z_bias"])}
    return ScoreTable.of_effects(effects)


def _session(dtype: str, seed: int, prompts: int, tokens: int) -> Session:
    config = RunConfig(
        max_prompts=prompts, text_tokens=tokens, dtype=dtype, seed=seed, axis=(AXIS,)
    )
    return Session(config)


def _cpu() -> float:
    """User seconds of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime
