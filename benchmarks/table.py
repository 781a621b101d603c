"""All that the benchmarks found, against what was aimed at, in one table.

Reads the JSON that each benchmark left in runs/bench; a benchmark that has not run leaves dashes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from levelhead.price import OWN_TEXT

OUT = Path("runs/bench")
LEFT_OUT = "FASP and joint are not beside them, for they need scores: python -m benchmarks frontier"
MISSING = "-"


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity, where it stands, and what it is to reach."""

    quantity: str
    source: str
    levelhead: Callable[[Any], str]
    plain: Callable[[Any], str]
    aim: str


def _nothing(_: Any) -> str:
    return ""


def _share(value: float) -> str:
    return f"{value:.0%}"


def _range(found: dict[str, Any]) -> str:
    return f"{found['least']:.1%} to {found['most']:.1%}"


def _ratio(found: dict[str, Any]) -> str:
    """A ratio with its interval: 26% [20%, 31%]."""
    low, high = found["ci95"]
    return f"{found['value']:.0%} [{low:.0%}, {high:.0%}]"


def _change(data: dict[str, Any], limit: str, method: str) -> str:
    """Of a method under a limit, mean over seeds: -0.010 +- 0.013 at +4.1%."""
    found = data["change"][limit][method]
    if not found["seeds"]:
        return "no set"
    return (
        f"{found['expected_difference']:+.3f} +- {found['half_width']:.3f} at {found['price']:+.1%}"
    )


def _averaged(found: dict[str, Any], target: str, rank: int | None) -> str:
    """Change of bias at matched contexts with its interval, and the largest price of the texts."""
    rows = [row for row in found["rows"] if (row["target"], row["rank"]) == (target, rank)]
    return _gives_and_costs(rows[0]) if rows else MISSING


def _tuned(found: dict[str, Any], method: str) -> str:
    """The same of a way at the setting that was chosen; of all ridges the best one on validation.

    Marked where no setting kept the limit there.
    """
    own = [row for row in found["tuned"] if row["method"].startswith(method)]
    if not own:
        return MISSING
    within = [row for row in own if row["validation"]["within_limit"]]
    if within:
        best = min(within, key=lambda row: float(row["validation"]["change"]))
        return _gives_and_costs(best)
    best = min(own, key=lambda row: float(row["validation"]["worst"]))
    return f"{_gives_and_costs(best)} (none kept the limit: the cheapest)"


def _gives_and_costs(row: dict[str, Any]) -> str:
    """-40% [-52%, -21%]; +0.2%, KL 0.003."""
    fall, price = row["matched_bias"]["change"], row["price"]
    low, high = fall["ci95"]
    worst = max(one["increase"]["value"] for one in price.values())
    kl = price[OWN_TEXT]["kl"]["value"]
    return f"{fall['value']:+.0%} [{low:+.0%}, {high:+.0%}]; {worst:+.1%}, KL {kl:.3f}"


LINES = (
    *(
        line
        for name, spearman, overlap, times in (
            ("full", "0.90", "70% (chance 14%)", ""),
            ("continuation", "0.70", "50% (chance 14%)", "50"),
        )
        for line in (
            Line(
                f"seed-to-seed Spearman of z_bias, {name}",
                "seeds",
                lambda d, n=name: f"{d[n]['z_bias_spearman']:.2f}",
                lambda d, n=name: (
                    f"{d['naive_simulated_seed_spearman']:.2f} (simulated)"
                    if n == "continuation"
                    else ""
                ),
                spearman,
            ),
            Line(
                f"heads in common of two seeds' sets, {name}",
                "seeds",
                lambda d, n=name: _share(d[n]["selected_in_common"]),
                _nothing,
                overlap,
            ),
            Line(
                f"CPU time of scoring bias, {name}: times less than naive ablation",
                "seeds",
                lambda d, n=name: f"{d['times_less_cpu'][n]:.0f}",
                lambda d: f"{d['cpu_seconds']['naive_extrapolated']:,.0f} s (extrapolated)",
                times,
            ),
        )
    ),
    Line(
        "seed-to-seed Spearman of signed gap effects, continuation",
        "seeds",
        lambda d: f"{d['continuation']['signed_gap_effect_spearman']:.2f}",
        _nothing,
        "0.75",
    ),
    Line(
        "CPU time of hybrid: times less than naive ablation",
        "hybrid",
        lambda d: f"{d['hybrid']['times_less_than_naive']:.0f}",
        lambda d: f"{d['naive_cpu_seconds_extrapolated']:,.0f} s (extrapolated)",
        "15",
    ),
    Line(
        "--protect exact, 4k tokens: times less CPU than a forward pass per head",
        "protect",
        lambda d: f"{d['exact_4k']['times_less']:.1f}",
        lambda d: f"{d['exact_4k']['plain_cpu_seconds']:,.0f} s",
        "2.5",
    ),
    Line(
        "the same: protected heads that differ",
        "protect",
        lambda d: f"{d['exact_4k']['heads_different']} of {d['protected']}",
        _nothing,
        "at most 1",
    ),
    Line(
        "--protect exact, 16k tokens: times less CPU",
        "protect",
        lambda d: f"{d['exact_16k']['times_less']:.1f}" if d["exact_16k"] else MISSING,
        lambda d: f"{d['plain_16k']['cpu_seconds_extrapolated']:,.0f} s (extrapolated)",
        "4",
    ),
    Line(
        "--protect curvature, 16k tokens: times less CPU",
        "protect",
        lambda d: f"{d['curvature']['times_less']:.0f}",
        lambda d: f"{d['plain_16k']['cpu_seconds_extrapolated']:,.0f} s (extrapolated)",
        "40",
    ),
    Line(
        "the same: heads in common with the exact set of held-out text",
        "protect",
        lambda d: f"{d['held_out']['curvature']['in_common_with_truth']} of {d['protected']}",
        lambda d: (
            f"{d['held_out']['exact, same CPU time']['in_common_with_truth']} "
            f"(exact, {d['held_out']['exact, same CPU time']['tokens']} tokens, same CPU time)"
        ),
        "as many",
    ),
    Line(
        "split-half overlap of the default protected set",
        "protect",
        lambda d: _share(d["curvature"]["split_half_overlap"]),
        _nothing,
        "85%",
    ),
    Line(
        "recall of planted heads in the top 10 (mean of plantings)",
        "planted",
        lambda d: _share(d["token-gradient"]["mean_recall_of_confirmed"]),
        lambda d: f"{d['naive']['mean_recall_of_confirmed']:.0%} (naive, same CPU time)",
        "95%",
    ),
    *(
        Line(
            f"planted heads that {what}: called {word!r}",
            "planted_readings",
            lambda d, k=kind: f"{d[k]['called']} of {d[k]['planted']}",
            lambda d, k=kind: f"confirmed by fresh draws: {d[k]['confirmed']}",
            "5 of 5",
        )
        for kind, what, word in (
            ("copies", "copy a group's name", "echo only"),
            ("adds", "add toxic words about a group", "lower"),
        )
    ),
    Line(
        "CPU time of the default grid of compare: times less than each point from scratch",
        "compare",
        lambda d: f"{d['times_less_cpu']:.1f}",
        lambda d: (
            f"{d['points_of_the_default_grid'] * d['cpu_seconds_per_point_from_scratch']:,.0f} s "
            "(extrapolated)"
        ),
        "",
    ),
    *(
        line
        for name, aim in (("full", "90%"), ("continuation", "65%"))
        for line in (
            Line(
                f"joint, {name}: expected held-out bias reduction against FASP's",
                "joint",
                lambda d, n=name: _ratio(d["inputs"][n]["joint against fasp"]["reduction"]),
                _nothing,
                "at least 90%",
            ),
            *(
                Line(
                    f"the same: measured {label} against FASP's",
                    "joint",
                    lambda d, n=name, k=key: _ratio(d["inputs"][n]["joint against fasp"][k]),
                    _nothing,
                    f"{aim} or less",
                )
                for key, label in (("kl", "KL"), ("nll", "NLL increase"))
            ),
            Line(
                f"soft, {name}: reduction against joint's, at the same predicted KL",
                "joint",
                lambda d, n=name: _ratio(d["inputs"][n]["soft against joint"]["reduction"]),
                lambda d, n=name: (
                    f"measured KL: {_ratio(d['inputs'][n]['soft against joint']['kl'])}"
                ),
                "",
            ),
        )
    ),
    *(
        Line(
            f"fisher_only: NLL increase against {name}",
            "joint",
            lambda d, n=name: (
                _ratio(d["fisher_only"][n]["fisher_only_against_it"])
                if n in d["fisher_only"]
                else MISSING
            ),
            lambda d, n=name: (
                f"{d['fisher_only'][n]['nll_increase']:.3f} nats" if n in d["fisher_only"] else ""
            ),
            aim,
        )
        for name, aim in (
            ("ppl_only, exact, same CPU time", "33% or less"),
            ("ppl_only, exact, 4k tokens", ""),
            ("ppl_only, curvature, 16k tokens", ""),
        )
    ),
    Line(
        "predicted against measured KL of sets: Pearson",
        "joint",
        lambda d: f"{d['predicted']['kl']['pearson']:.2f} ({d['predicted']['sets']} sets)",
        lambda d: (
            f"{d['predicted']['kl_of_summed_single_heads']['pearson']:.2f} (single heads, sums)"
        ),
        "0.95",
    ),
    *(
        Line(
            f"predicted {name} of sets, as a share of the measured",
            "joint",
            lambda d, k=key: f"{d['predicted'][k]['ratio_predicted_to_measured']:.2f}",
            lambda d, k=key: (
                f"{d['predicted']['kl_of_summed_single_heads']['ratio_predicted_to_measured']:.2f}"
                " (single heads, sums)"
                if k == "kl"
                else ""
            ),
            "1",
        )
        for name, key in (("KL", "kl"), ("rise of NLL", "nll"))
    ),
    *(
        Line(
            f"fresh sampling, full: bias, {name}",
            "joint_fresh",
            lambda d, n=name: (
                f"{d['differences'][n]['bias']:+.3f} +- {d['differences'][n]['stderr']:.3f}, "
                f"p = {d['differences'][n]['p']:.2g}"
            ),
            lambda d, n=name: f"mean toxicity {d['differences'][n]['mean_toxicity']:+.3f}",
            "se at most 0.012",
        )
        for name in ("fasp - base", "joint - base", "joint - fasp")
    ),
    *(
        Line(
            f"heads of FASP's set ({key}) in common of float32 and bfloat16; of two float32 seeds",
            "dtype",
            lambda d, k=key: _share(d["other_format"][k]["in_common"]),
            lambda d, k=key: _share(d["other_seed"][k]["in_common"]),
            "as two seeds or better",
        )
        for key in ("gamma 0.3, alpha 0.1", "gamma 0.7, alpha 0.05")
    ),
    Line(
        "CPU time of scoring in bfloat16: times less than in float32",
        "dtype",
        lambda d: f"{d['times_less_cpu']['all']:.1f}",
        lambda d: f"{d['cpu_seconds']['float32']['all']:,.0f} s",
        "",
    ),
    *(
        line
        for source, axis in (
            ("averaging", "gender_and_sex"),
            ("averaging.sexual_orientation", "sexual_orientation"),
        )
        for line in (
            *(
                Line(
                    f"{axis}: masked bias, {target}, rank {rank or 'all'}; perplexity on the worst "
                    "text, KL on own text",
                    source,
                    lambda d, t=target, r=rank: _averaged(d, t, r),
                    _nothing,
                    aim,
                )
                for target, aim in (
                    ("average", "at most +0.5%"),
                    ("shuffled", "nothing measurable"),
                )
                for rank in (8, 64, None)
            ),
            *(
                Line(
                    f"{axis}: the same within 0.5%, averaging beside {name}",
                    source,
                    lambda d: _tuned(d, "average"),
                    lambda d, m=method: _tuned(d, m),
                    "",
                )
                for method, name in (
                    ("LEACE", "linear concept erasure (LEACE)"),
                    ("steering", "a steering span"),
                    ("instruction", "an instruction before the prompt (own text alone)"),
                )
            ),
        )
    ),
    Line(
        "sets chosen under a limit of 1 to 10%: within it on the worst test text",
        "frontier",
        lambda d: f"{d['kept']} of {d['of']}",
        _nothing,
        "all",
    ),
    Line(
        "the same: price on test texts as a multiple of that on validation texts, median (range)",
        "frontier",
        lambda d: "{1:.2f} ({0:.2f} to {2:.2f})".format(*d["test_to_validation_price"]),
        _nothing,
        "0.8 to 1.25",
    ),
    *(
        Line(
            f"expected change of the masked gap within {limit}, FASP and joint",
            "frontier",
            lambda d, k=limit: f"{_change(d, k, 'fasp')}; {_change(d, k, 'joint')}",
            lambda d: f"{_change(d, 'no limit', 'fasp')} (FASP at 0.3 / 0.1)",
            "60% of FASP's at 0.3 / 0.1" if limit == "5%" else "",
        )
        for limit in ("1%", "2%", "5%", "10%")
    ),
    Line(
        "growth of the gradient's cost from 4 to 64 heads per layer",
        "growth",
        lambda d: f"{d['largest_ratio']:.2f}",
        lambda d: f"{d['naive_largest_ratio']:.1f} (extrapolated)",
        "1.3",
    ),
    Line(
        "coverage of 95% intervals: signed gaps",
        "coverage",
        lambda d: _range(d["range"]["signed_gaps"]),
        _nothing,
        "92 to 98%",
    ),
    Line(
        "the same: paired differences",
        "coverage",
        lambda d: _range(d["range"]["paired_differences"]),
        _nothing,
        "92 to 98%",
    ),
    Line(
        "the same: bias(S)",
        "coverage",
        lambda d: _range(d["range"]["bias"]),
        _nothing,
        "at least 92%",
    ),
)


def show() -> None:
    """Print the table."""
    table = Table(title="levelhead beside the plain way, SmolLM2-135M-Instruct")
    for name in ("quantity", "levelhead", "the plain way", "aim"):
        table.add_column(name, overflow="fold")
    for line in LINES:
        path = OUT / f"{line.source}.json"
        if path.exists():
            found = json.loads(path.read_text())
            cells = (line.levelhead(found), line.plain(found))
        else:
            name, _, axis = line.source.partition(".")
            cells = (MISSING, f"python -m benchmarks {name}" + (f" --axis {axis}" if axis else ""))
        table.add_row(line.quantity, *cells, line.aim)
    console = Console(width=150)
    console.print(table)
    console.print(f"Averaging, LEACE, steering and the instruction: {LEFT_OUT}")
