"""Sets of heads chosen as sets, against FASP's: bias, KL and NLL on held-out prompts and text.

For both inputs of the classifier: FASP's set at gamma 0.3 and alpha 0.1; method joint's set, the
cheapest of the finalists of its frontier, which are read on validation prompts that no score was
made from; and a random unprotected set. All are read, gated, on TEST prompts and text, the same
for every set, so that differences are paired. Nothing of the test split chose anything. The
performance-only sets are read on the text alone; so are sets enough to say how well KL is
predicted. Soft pruning has the predicted KL of joint's hard set.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks import plain_perplexity, protect
from benchmarks.joint_sets import (
    ALPHA,
    AXIS,
    GAMMA,
    INPUTS,
    Gates,
    Json,
    cost_of,
    digest,
    gates_of,
    keep,
    problem_of,
    session_of,
    table_of,
    texts_of,
    variant_of,
)
from levelhead.evaluation.axis import expected_shifts, read_matched, t_reach
from levelhead.evaluation.base import BaseAxis, base_axis
from levelhead.evaluation.divergence import compare_on_text
from levelhead.progress import silent
from levelhead.records import HeadSelection
from levelhead.scores import PPL, ScoreTable
from levelhead.scoring.effects import base_gaps, delete_one, gap_change, jackknife, z_bias
from levelhead.scoring.problem import MAIN
from levelhead.selection import select_heads
from levelhead.selection.joint import JOINT, KEPT, finalists, joint_frontier, pairs_of
from levelhead.selection.rules import protected_heads
from levelhead.selection.set_search import SetSpace
from levelhead.selection.soft import soft_selection
from levelhead.session import Session

FINALISTS = 4
SEARCH_GROUPS, TEST_GROUPS = 20, 40
TEXT_TOKENS = 4096
RANDOM_SETS = 8
"""Of which the first of each input is read on prompts, too."""


def measure(quick: bool) -> Json:
    """The rows of the table."""
    if quick:
        raise SystemExit("joint has no quick form: its sets differ by little more than their noise")
    sets: dict[str, Gates] = {}
    found: Json = {}
    for name in INPUTS:
        session = session_of(name)
        own = sets_of(session)
        sets |= {f"{name}: {key}": gates for key, gates in own.items()}
        found[name] = _on_prompts(session, own)
    session = session_of(INPUTS[0])
    sets |= performance_sets(session)
    text = _on_text(session, sets)
    return {"inputs": {name: _input_rows(name, found[name], text) for name in INPUTS}} | {
        "fisher_only": _performance_rows(text),
        "predicted": _prediction(session, sets, text),
    }


def sets_of(session: Session) -> dict[str, Gates]:
    """fasp, joint (the winner of its finalists), soft, random; and the finalists."""
    name = session.config.toxicity_input
    table = table_of(session)
    shape = (table.num_layers, table.num_heads)
    fasp = select_heads(table, axis=AXIS, method="fasp", gamma=GAMMA, alpha=ALPHA)
    allowed = ~protected_heads(table, GAMMA).reshape(-1)
    space = SetSpace(count=len(fasp.heads), allowed=allowed)
    choices, plain = joint_frontier(table, AXIS, space, JOINT)
    kl, values = [c.kl for c in choices], [c.value for c in choices]
    picked = finalists(kl, values, plain.value, FINALISTS)
    read = [plain, *(choices[i] for i in picked)]
    heads = [pairs_of(choice.heads, table.num_heads) for choice in read]
    part = f"finalists_{name}_{digest(heads)}"
    judged = keep(part, lambda: _judged(session, heads))
    least = KEPT * -judged[0]["expected"]
    fits = [i for i, one in enumerate(judged) if i and -one["expected"] >= least]
    best = min(fits, key=lambda i: judged[i]["kl"]) if fits else 1
    winner = HeadSelection.of(heads[best], method="joint", gamma=GAMMA, alpha=ALPHA)
    out = {"fasp": gates_of(fasp, shape), "joint": gates_of(winner, shape)}
    out["soft"] = gates_of(soft_selection(table, winner, AXIS, JOINT), shape)
    rng = np.random.default_rng(INPUTS.index(name))
    for number in range(RANDOM_SETS // len(INPUTS)):
        drawn = rng.choice(np.flatnonzero(allowed), space.count, replace=False)
        unprotected = HeadSelection.of(pairs_of(drawn, table.num_heads))
        out[f"random {number}"] = gates_of(unprotected, shape)
    for number, chosen in enumerate(heads[1:]):
        out[f"finalist {number}"] = gates_of(HeadSelection.of(chosen), shape)
    return out


def _judged(session: Session, sets: list[list[tuple[int, int]]]) -> list[Json]:
    """Expected change of bias and KL of each set, on freshly sampled validation prompts."""
    problem = problem_of(session, "validation", "search")
    base = base_axis(problem, silent, texts_of(problem, "search"), SEARCH_GROUPS)
    model = session.base.model
    gates = [gates_of(HeadSelection.of(one), session_shape(session)) for one in sets]
    variants = [variant_of(model, one) for one in gates]
    texts = compare_on_text(session, model, variants, "validation", silent, TEXT_TOKENS // 2)
    rows = [_reading(base, session, one) for one in gates]
    values = _falls(base, rows)["value"]
    pairs = zip(values, texts, strict=True)
    return [{"expected": value, "kl": text.kl.value} for value, text in pairs]


def session_shape(session: Session) -> tuple[int, int]:
    config = session.base.model.config
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def _reading(base: BaseAxis, session: Session, gates: Gates) -> np.ndarray:
    return read_matched(base, variant_of(session.base.model, gates), silent, [MAIN])[MAIN]


def _falls(base: BaseAxis, rows: list[np.ndarray]) -> Json:
    """Change of bias of each set, and what it is without each template in turn."""
    shifts, weights = expected_shifts(base, rows), base.problem.weights
    gap = base_gaps(base.problem, base.texts, shifts)
    every = np.ones(len(gap), dtype=bool)
    without = -z_bias(gap, delete_one(shifts, weights), every)[:, 0]
    return {
        "value": (-z_bias(gap, gap_change(shifts, weights), every)[0]).tolist(),
        "stderr": jackknife(without).tolist(),
        "without": without.tolist(),
        "reach": t_reach(shifts),
        "toxicity": (shifts.shift.mean((0, 1))[0]).tolist(),
        "base_bias": float(np.abs(gap).sum()),
    }


def _on_prompts(session: Session, sets: dict[str, Gates]) -> Json:
    """Sets read on test prompts, all with the same continuations."""
    name = session.config.toxicity_input
    problem = problem_of(session, "test", "test")
    base: BaseAxis | None = None
    names = ("fasp", "joint", "soft", "random 0")
    rows = []
    for which in names:
        path = f"read_{name}_{which.replace(' ', '')}_{digest(sets[which].tolist())}"

        def make(which: str = which) -> list[float]:
            nonlocal base
            base = base or base_axis(problem, silent, texts_of(problem, "test"), TEST_GROUPS)
            found: list[float] = _reading(base, session, sets[which]).tolist()
            return found

        rows.append(np.array(keep(path, make)))

    def summed() -> Json:
        read = base or base_axis(problem, silent, texts_of(problem, "test"), TEST_GROUPS)
        return {"sets": names} | _falls(read, rows)

    part = digest([sets[which].tolist() for which in names])
    found: Json = keep(f"prompts_{name}_{part}", summed)
    return found


def performance_sets(session: Session) -> dict[str, Gates]:
    """Methods that look at perplexity alone, from text of the validation part."""
    table = table_of(session)
    shape = (table.num_layers, table.num_heads)

    def chosen(method: str, of: ScoreTable) -> Gates:
        return gates_of(select_heads(of, axis=AXIS, method=method, alpha=ALPHA), shape)

    out = {
        "fisher_only": chosen("fisher_only", table),
        "ppl_only, curvature, 16k tokens": chosen("ppl_only", table),
    }
    exact = protect.KEPT / "exact_short.json"
    if exact.exists():  # python -m benchmarks protect
        effect = protect._kept("exact_short")["effect"]
        known = ScoreTable.of_effects({PPL: effect.reshape(shape)})
        out["ppl_only, exact, same CPU time"] = chosen("ppl_only", known)
    if plain_perplexity.KEPT.exists():  # python -m benchmarks plain
        effect = -np.load(plain_perplexity.KEPT)["change"].mean(0)
        known = ScoreTable.of_effects({PPL: effect.reshape(shape)})
        out["ppl_only, exact, 4k tokens"] = chosen("ppl_only", known)
    return out


def _on_text(session: Session, sets: dict[str, Gates]) -> dict[str, Json]:
    """NLL increase and KL of each set on test text, with what each window says."""

    def make() -> dict[str, Json]:
        model = session.base.model
        variants = [variant_of(model, gates) for gates in sets.values()]
        read = compare_on_text(session, model, variants, "test", silent, TEXT_TOKENS)
        return {
            name: {
                "kl": one.kl.to_json(),
                "nll": one.nll_increase,
                "perplexity": one.other.perplexity,
                "base_perplexity": one.base.perplexity,
                "windows": {
                    "kl": (one.block_kl / one.base.block_tokens).tolist(),
                    "nll": (one.other.block_mean - one.base.block_mean).tolist(),
                    "weight": one.base.block_weight.tolist(),
                },
            }
            for name, one in zip(sets, read, strict=True)
        }

    part = digest({name: gates.tolist() for name, gates in sets.items()})
    found: dict[str, Json] = keep(f"text_{part}", make)
    return found


def _input_rows(name: str, prompts: Json, text: dict[str, Json]) -> Json:
    place = {which: i for i, which in enumerate(prompts["sets"])}
    without = np.array(prompts["without"])
    rows: Json = {"base_bias": prompts["base_bias"]}
    for which, i in place.items():
        reach = prompts["reach"] * prompts["stderr"][i]
        value, own = prompts["value"][i], text[f"{name}: {which}"]
        rows[which] = {
            "expected_difference": {"value": value, "ci95": [value - reach, value + reach]},
            "expected_toxicity_difference": prompts["toxicity"][i],
            "kl": own["kl"],
            "nll_increase": own["nll"],
        }
    for one, other in (("joint", "fasp"), ("soft", "joint"), ("soft", "fasp")):
        share = without[:, place[one]] / without[:, place[other]]
        value = prompts["value"][place[one]] / prompts["value"][place[other]]
        reach = prompts["reach"] * float(jackknife(share))
        pair = (text[f"{name}: {one}"], text[f"{name}: {other}"])
        rows[f"{one} against {other}"] = {
            "reduction": {"value": value, "ci95": [value - reach, value + reach]},
            "kl": _ratio(*pair, "kl"),
            "nll": _ratio(*pair, "nll"),
        }
    return rows


def _ratio(one: Json, other: Json, key: str) -> Json:
    """A ratio of means over windows, with its interval by leaving out one window at a time."""
    weight = np.array(one["windows"]["weight"])
    pair = [np.array(x["windows"][key]) * weight for x in (one, other)]
    left = [x.sum() - x for x in pair]
    value = float(pair[0].sum() / pair[1].sum())
    reach = float(stats.t.ppf(0.975, len(weight) - 1) * jackknife(left[0] / left[1]))
    return {"value": value, "ci95": [value - reach, value + reach]}


def _performance_rows(text: dict[str, Json]) -> Json:
    own = text["fisher_only"]
    rows: Json = {"fisher_only": {"nll_increase": own["nll"], "kl": own["kl"]}}
    for name in (n for n in text if n.startswith("ppl_only")):
        rows[name] = {"nll_increase": text[name]["nll"], "kl": text[name]["kl"]}
        rows[name]["fisher_only_against_it"] = _ratio(own, text[name], "nll")
    return rows


def _prediction(session: Session, sets: dict[str, Gates], text: dict[str, Json]) -> Json:
    """How well the cost model foretells KL and NLL of sets on held-out text; soft ones apart."""
    cost, about = cost_of(session)
    # Each set once: joint's is one of the finalists.
    unique = {gates.tobytes(): name for name, gates in sets.items() if "soft" not in name}
    hard = sorted(unique.values())
    x = np.array([1 - sets[name].reshape(-1) for name in hard])
    kl = np.array([text[name]["kl"]["value"] for name in hard])
    nll = np.array([text[name]["nll"] for name in hard])
    single = (x @ np.diag(cost.fisher)) / 2 / about["diagnostics"]["set_level"]
    return {
        "sets": len(hard),
        "calibration": {k: v for k, v in about["diagnostics"].items() if "set" in k},
        "kl": _foretold(cost.kl(x), kl),
        "nll": _foretold(cost.nll(x), nll),
        "kl_of_summed_single_heads": _foretold(single, kl),
        "soft": {
            name: [float(cost.kl(1 - sets[name].reshape(-1))), text[name]["kl"]["value"]]
            for name in sets
            if "soft" in name
        },
        "each": {
            name: {"kl": [p, k], "nll": [q, n]}
            for name, p, k, q, n in zip(
                hard, cost.kl(x).tolist(), kl.tolist(), cost.nll(x).tolist(), nll.tolist(),
                strict=True,
            )
        },
    }  # fmt: skip


def _foretold(predicted: np.ndarray, measured: np.ndarray) -> Json:
    """Correlation and level of predictions of sets."""
    return {
        "pearson": float(stats.pearsonr(predicted, measured).statistic),
        "ratio_predicted_to_measured": float(predicted.sum() / measured.sum()),
        "ratios": [float(q) for q in np.quantile(predicted / measured, [0, 0.25, 0.5, 0.75, 1])],
    }
