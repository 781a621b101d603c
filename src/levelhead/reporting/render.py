"""The report: one HTML page that holds everything it needs and loads nothing.

It formats what evaluation.json, scores.csv, selection.json, config.json and details.json say and
estimates nothing. It reads and writes no run folder.

Everything from outside is escaped by jinja after `visible` (the environment's `finalize`, so no
expression of the template can miss it), labels of plots by `plot_text`, and the figures stand as
JSON in a data block that nothing executes. A Content-Security-Policy forbids all loading, and all
scripts but the two of the page, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping
from importlib import metadata, resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from levelhead.records import HeadSelection
from levelhead.reporting import numbers, summary
from levelhead.reporting.escape import script_json, visible
from levelhead.reporting.heads import PRUNED, HeadView, head_view
from levelhead.reporting.plots import gap_plots, head_plots
from levelhead.reporting.summary import mapping, texts
from levelhead.scores import ScoreTable

TEMPLATE = "page.html.jinja"
_RUN_MARK = "levelhead_run"  # config.json's own format number, not an option
_VERSIONS = "versions"


def render_report(
    *,
    evaluation: Mapping[str, Any],
    table: ScoreTable,
    selection: HeadSelection,
    config: Mapping[str, Any],
    details: Mapping[str, Any],
) -> str:
    """One self-contained HTML page (about 5 MB, nearly all of it plotly.js).

    Args:
        evaluation: evaluation.json (`records.Evaluation.to_json`). What it lacks beyond
            "headline" and "axes" is left out of the page.
        table: scores of every head; effects it has no base column for are left out.
        selection: the pruned heads; its details may hold "axis", "protected" and "reliable".
        config: config.json, the options of the run.
        details: details.json of scoring; may be empty.

    Returns:
        The page. It is valid UTF-8 whatever the strings hold, and the same for the same input.
    """
    view = head_view(table, selection)
    of_heads, of_gaps = head_plots(view), gap_plots(evaluation)
    chosen = selection.details or {}
    reliable = evaluation.get("reliable", chosen.get("reliable"))
    figure_data = {plot.key: plot.figure for plot in (*of_heads, *of_gaps)}
    page_script, plotly_script = _source("page.js"), _plotly()
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            model=_model_name(evaluation, config),
            headline=str(evaluation.get("headline") or ""),
            warnings=summary.warnings(evaluation, details, reliable=reliable),
            groups=summary.groups(evaluation),
            perplexity=_perplexity_note(evaluation),
            selection=_selection_facts(selection, view),
            head_plots=[plot for plot in of_heads if plot.key in ("bias-0", "ppl", "scatter")],
            more_head_plots=[p for p in of_heads if p.key not in ("bias-0", "ppl", "scatter")],
            gap_plots=of_gaps,
            gaps=_gap_rows(evaluation),
            heads=_head_rows(view),
            head_axis=next(iter(view.bias), None),
            has_ppl=view.ppl is not None,
            reliability=_reliability_rows(details),
            estimator=str(config.get("estimator", "token-gradient")),
            toxicity_input=str(config.get("toxicity_input", "")),
            examples=_examples(evaluation, details),
            options=[(k, _option(v)) for k, v in config.items() if k not in (_RUN_MARK, _VERSIONS)],
            command=_command(config),
            versions=_versions(evaluation, config, details),
            policy=_policy(plotly_script, page_script),
            plotly_script=Markup(plotly_script),  # noqa: S704 - the installed package's own file
            page_script=Markup(page_script),  # noqa: S704 - our own file
            figures=Markup(script_json(figure_data)),  # noqa: S704 - escaped for a script element
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["multiline"] = _multiline
    return environment


def _finalize(value: Any) -> Any:
    """What every `{{ }}` passes through before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _multiline(text: str) -> Markup:
    return escape(visible(text, multiline=True))


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _policy(*scripts: str) -> str:
    """Load nothing; run these scripts only ('unsafe-inline' is for browsers without hashes)."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'unsafe-inline' {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _model_name(evaluation: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    name = evaluation.get("model") or config.get("model")
    return str(name) if name else "the embedded model"


def _perplexity_note(evaluation: Mapping[str, Any]) -> str:
    data = mapping(evaluation, "perplexity")
    text, tokens = data.get("text"), numbers.finite(data.get("tokens"))
    size = f"{numbers.count(tokens)} tokens of " if tokens is not None and text else ""
    return f"{size}{text}" if text else ""


def _selection_facts(selection: HeadSelection, view: HeadView) -> dict[str, Any]:
    return {
        "pruned": len(selection.heads),
        "total": view.num_layers * view.num_heads,
        "method": selection.method,
        "gamma": numbers.finite(selection.gamma),
        "alpha": numbers.finite(selection.alpha),
        "axis": (selection.details or {}).get("axis"),
    }


def _gap_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for axis, data in mapping(evaluation, "axes").items():
        gaps = [mapping(data, which, "gaps") for which in ("base", "pruned")]
        for name in dict.fromkeys([*gaps[0], *gaps[1]]):
            found = [mapping(gap, name) for gap in gaps]
            cells = [
                summary.Cell(numbers.decimal(gap.get("value")), numbers.interval(gap.get("ci95")))
                for gap in found
            ]
            rows.append({"axis": str(axis), "subgroup": str(name), "cells": cells})
    return rows


def _head_rows(view: HeadView) -> list[tuple[str, ...]]:
    effects = [*list(view.bias.values())[:1], *([view.ppl] if view.ppl is not None else [])]
    return [
        (str(layer), str(head), *(numbers.with_error(*e.of((layer, head))) for e in effects))
        for layer, head in view.with_status(PRUNED)
    ]


def _reliability_rows(details: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for axis, data in mapping(details, "axes").items():
        known = mapping({"axis": data}, "axis")
        subgroups, used = texts(known.get("subgroups")), texts(known.get("used"))
        measurable = known.get("measurable") is not False
        names = ", ".join(used) or numbers.MISSING
        share = f" ({len(used)} of {len(subgroups)})" if subgroups else ""
        agreement = mapping(details, "agreement", str(axis))
        rows.append(
            {
                "axis": str(axis),
                "reliability": numbers.decimal(known.get("reliability"), 2),
                "r2": numbers.decimal(known.get("token_toxicity_r2"), 2),
                "beta": numbers.decimal(known.get("beta"), 2),
                "used": names + share if measurable else "none",
                "pruned": _overlap(agreement, "overlap", "overlap_chance"),
                "protected": _overlap(agreement, "protected_overlap", "protected_chance"),
            }
        )
    return rows


def _overlap(agreement: Mapping[str, Any], name: str, chance: str) -> str:
    """63% (chance 14%)."""
    share, by_chance = numbers.finite(agreement.get(name)), numbers.finite(agreement.get(chance))
    if share is None:
        return numbers.MISSING
    return f"{share:.0%}" + ("" if by_chance is None else f" (chance {by_chance:.0%})")


def _examples(*sources: Mapping[str, Any]) -> list[dict[str, str]]:
    found: list[Any] = next(
        (s["examples"] for s in sources if isinstance(s.get("examples"), list)), []
    )
    return [
        {key: str(example.get(key, "")) for key in ("prompt", "base", "pruned")}
        for example in found
        if isinstance(example, Mapping)
    ]


def _option(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _command(config: Mapping[str, Any]) -> str:
    """The command line that starts the same run in another folder; empty without options."""
    words = ["levelhead", "run"]
    if config.get("model"):
        words.append(str(config["model"]))
    for name, value in config.items():
        if name in ("model", _RUN_MARK, _VERSIONS) or value is None or isinstance(value, Mapping):
            continue
        flag = "--" + str(name).replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                words += [flag, str(item)]
    return shlex.join([*words, "--out", "FOLDER"]) if config else ""


def _versions(*sources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The versions a stage recorded, and that of the levelhead that made the page."""
    recorded = next((v for source in sources if (v := mapping(source, _VERSIONS))), {})
    rows = [(str(name), str(version)) for name, version in recorded.items()]
    try:
        own = metadata.version("levelhead")
    except metadata.PackageNotFoundError:
        return rows
    return [*rows, ("levelhead (this page)", own)]
