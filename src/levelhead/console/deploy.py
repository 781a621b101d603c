"""Tables about the pruned model at work: standard tasks, and size and speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from levelhead.console.summaries import warn
from levelhead.console.terminal import output
from levelhead.reporting.escape import visible

Json = Mapping[str, Any]
SIZES = {
    "parameters": "parameters",
    "bytes": "bytes of weights",
    "kv_cache_bytes_per_token": "cache bytes per token",
}


def tasks_summary(found: Json) -> None:
    """Per task and metric: both models with standard errors, and the paired difference."""
    models = [which for which in ("base", "pruned") if which in found["models"]]
    table = _table("task", "metric", "items", *models, *(["pruned - base"] if models[1:] else []))
    for task, metrics in found["tasks"].items():
        for metric, entry in metrics.items():
            if metric == "items":
                continue
            row = [visible(task), visible(metric), str(metrics.get("items") or "")]
            row += [_with_error(entry[which]) for which in models]
            if "difference" in entry:
                row.append(_with_ends(entry["difference"], "+.4f"))
            table.add_row(*map(escape, row))
    console = output()
    console.print(table)
    console.print("standard errors after ±; [95% interval] over the same items".replace("[", r"\["))


def bench_summary(found: Json) -> None:
    """Throughput ratios with the control, then sizes; warnings last."""
    console = output()
    table = _table("throughput", "pruned / base", "control: base / base", "base, tokens/s")
    for phase, ratio in found["ratios"].items():
        speed = found["base"]["tokens_per_second"][phase]
        cells = (_with_ends(ratio, ".3f"), _with_ends(found["control"][phase], ".3f"))
        table.add_row(phase, *map(escape, cells), f"{speed:,.1f}")
    console.print(table)
    table = _table("size", "base", "pruned", "change")
    for key, words in SIZES.items():
        before, after = found["base"][key], found["pruned"][key]
        change = f"{after / before - 1:+.1%}" if before else ""
        table.add_row(words, f"{before:,.0f}", f"{after:,.0f}", change)
    before, after = (_peak(found[which]) for which in ("base", "pruned"))
    if before and after:
        words = "peak resident memory, bytes"
        table.add_row(words, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}")
    console.print(table)
    warn(found["warnings"])


def _peak(model: Json) -> int | None:
    peak = (model["peak_memory"] or {}).get("peak")
    return None if peak is None else int(peak)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left")
    return table


def _with_error(value: Json) -> str:
    if value["value"] is None:
        return ""
    error = "" if value["stderr"] is None else f" ± {value['stderr']:.4f}"
    return f"{value['value']:.4f}{error}"


def _with_ends(estimate: Json, form: str) -> str:
    if estimate["value"] is None:
        return ""
    text = format(estimate["value"], form)
    if estimate["ci95"] is None:
        return text
    low, high = (format(end, form) for end in estimate["ci95"])
    return f"{text} [{low}, {high}]"
