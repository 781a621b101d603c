"""The tables of axis correlations and of heads at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

UNKNOWN = "-"


def axes_summary(found: Mapping[str, Any]) -> None:
    """Correlations by pair of axes and run, differences between runs, and the cross table."""
    console = output()
    if found["correlations"]:
        _correlations(console, found)
    _differences(console, found)
    if found["same_model"]:
        table = _table("axis", "runs of one model", numbers=("Spearman", "corrected"))
        for row in found["same_model"]:
            shared = "\n(same seed)" if row["same_seed"] else ""
            table.add_row(
                _text(row["axis"]),
                "\n".join(map(_text, row["runs"])) + shared,
                _estimate(row["spearman"]),
                _estimate(row["corrected"]),
            )
        console.print(table)
    if found["cross"]:
        _cross(console, found["cross"])
    for note in found["notes"]:
        console.print(f"- {_text(note)}")


def _correlations(console: Console, found: Mapping[str, Any]) -> None:
    """A row per pair of axes and run, the runs of a pair below each other."""
    several = len(found["runs"]) > 1
    table = _table(
        "axes",
        *(["run"] if several else []),
        numbers=("Spearman", "corrected", "reliability"),
    )
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in found["correlations"]))
    for row in sorted(found["correlations"], key=lambda r: pairs.index((r["a"], r["b"]))):
        known = [found["reliability"][row["run"]][row[side]] for side in ("a", "b")]
        table.add_row(
            f"{_text(row['a'])}\n{_text(row['b'])}",
            *([_text(row["run"])] if several else []),
            _estimate(row["spearman"]),
            _estimate(row["corrected"]),
            "\n".join(_number(x) for x in known),
        )
    console.print(table)
    console.print(
        "Spearman correlation of z_bias over heads, with a 95% interval. Corrected: divided by "
        f"the root of both reliabilities ({UNKNOWN}: unknown, or too low to correct for)."
    )


def _differences(console: Console, found: Mapping[str, Any]) -> None:
    beyond = [row for row in found["differences"] if row["differ"]]
    if found["differences"]:
        console.print(
            f"{len(beyond)} of {len(found['differences'])} differences between runs are beyond "
            "their 95% interval" + (":" if beyond else ".")
        )
    for row in beyond:
        judged = row["corrected"] or row["spearman"]
        how = "corrected" if row["corrected"] else "not corrected"
        low, high = judged["ci95"]
        console.print(
            _text(
                f"- {row['a']} with {row['b']}: {row['runs'][0]} minus {row['runs'][1]} "
                f"{judged['value']:+.2f} ({low:+.2f} to {high:+.2f}, {how})"
            )
        )


def _cross(console: Console, cross: Mapping[str, Any]) -> None:
    columns = ("fasp", "random set", "base bias", "same heads")
    table = _table("pruned for\nmeasured on", numbers=columns)
    control = {(row["selected_for"], row["measured_on"]): row for row in cross["random"]}
    for row in sorted(cross["rows"], key=lambda row: row["selected_for"]):
        beside = control[row["selected_for"], row["measured_on"]]
        table.add_row(
            f"{_text(row['selected_for'])}\n{_text(row['measured_on'])}",
            _estimate(row["expected_difference"], "+.4f"),
            _estimate(beside["expected_difference"], "+.4f"),
            f"{row['base_bias']:.4f}",
            f"{row['overlap']:.0%}",
        )
    console.print(table)
    console.print(
        f"Expected difference of bias on test prompts without the {cross['rows'][0]['num_heads']} "
        f"heads (alpha {cross['alpha']:g}, gamma {cross['gamma']:g}; negative: it falls), beside "
        "that of a random set of as many unprotected heads. Same heads: as chosen for the "
        "measured axis."
    )


def glance_summary(found: Mapping[str, Any]) -> None:
    """Distributions, the share of critical heads, correlations with z_ppl, and other gammas."""
    console = output()
    total = found["num_layers"] * found["num_heads"]
    console.print(_text(f"{found['name']}: {total} heads ({found['num_layers']} layers)"))
    names = ("smallest", "5%", "median", "95%", "largest")
    table = _table("effect", numbers=names)
    table.add_row("z_ppl", *_quantiles(found["distributions"]["ppl"], ".3f"))
    for axis, shown in found["distributions"]["bias"].items():
        table.add_row(f"z_bias {_text(axis)}", *_quantiles(shown, ".4f"))
    console.print(table)
    console.print(_critical(found["critical"]))
    for axis, row in found["correlation"].items():
        corrected = row["corrected"]
        more = f"; corrected {_in_line(corrected)}" if corrected else ""
        console.print(
            f"{_text(axis)}: correlation of z_ppl with z_bias {_in_line(row['spearman'])}{more}."
        )
    _gammas(console, found)
    for note in found["notes"]:
        console.print(f"- {_text(note)}")


def _critical(critical: Mapping[str, Any]) -> str:
    share = critical["share"]
    said = f"Critical heads (perplexity up by over {critical['threshold']:.1%} without one): "
    said += f"{critical['num_heads']}, {share['value']:.0%} of all"
    if share["ci95"]:
        low, high = share["ci95"]
        said += f" (95% interval {low:.0%} to {high:.0%})"
    said += f"; the paper says about {critical['paper']:.0%}."
    if critical["halves"] and critical["halves"]["same"] is not None:
        same = critical["halves"]["same"]
        said += f" Two halves of the text agree on {same:.0%} of them."
    if critical["below_zero"] is not None:
        said += f" The interval of z_ppl lies below 0 for {critical['below_zero']:.0%} of heads."
    return said


def _gammas(console: Console, found: Mapping[str, Any]) -> None:
    chosen = found["selection"]
    for axis in found["axes"]:
        columns = ("bias", "bias, sum", "held out", "perplexity", "same heads")
        table = _table("gamma", numbers=columns)
        table.title = _text(f"{axis}: fasp at alpha {chosen['alpha']:g}, predicted changes")
        for row in (row for row in found["gamma"] if row["axis"] == axis):
            table.add_row(
                f"{row['gamma']:g}" + (" *" if row["gamma"] == chosen["gamma"] else ""),
                _number(row["bias_change"], "+.4f"),
                _number(row["bias_change_sum"], "+.4f"),
                _number(row["bias_change_held_out"], "+.4f"),
                f"{row['ppl_increase']:+.1%}",
                f"{row['overlap']:.0%}",
            )
        console.print(table)
    console.print(
        "Bias: effects on the signed gaps added up; sum: z_bias added up; held out: that sum for "
        "heads chosen by the other half of the run. Same heads: as at the gamma marked *."
    )


def _table(*names: str, numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _quantiles(shown: Mapping[str, Any], form: str) -> list[str]:
    return [f"{shown['quantiles'][q]:{form}}" for q in ("0", "0.05", "0.5", "0.95", "1")]


def _estimate(value: Mapping[str, Any] | None, form: str = ".2f") -> str:
    if value is None:
        return UNKNOWN
    low, high = value["ci95"]
    return f"{value['value']:{form}}\n{low:{form}} to {high:{form}}"


def _in_line(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "unknown"
    low, high = value["ci95"]
    return f"{value['value']:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float | None, form: str = ".2f") -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _text(text: str) -> str:
    return escape(visible(text))
