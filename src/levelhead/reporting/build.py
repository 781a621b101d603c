"""The report's content out of the files of a run: which sections there are, and in which order."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from levelhead.reporting import sections, summary
from levelhead.reporting.content import Report, Section
from levelhead.reporting.explorer import explorer
from levelhead.reporting.findings import EXPERIMENTS, Findings
from levelhead.reporting.first_screen import first_screen
from levelhead.reporting.head_view import HeadView, head_view
from levelhead.reporting.summary import mapping, started_by
from levelhead.search_result import nothing_found

FORMAT = 1
_RUN_MARK = "levelhead_run"  # config.json's own format number, not an option
_VERSIONS = "versions"
_CHOSEN_BY_A_SEARCH = ("method", "gamma", "alpha", "max_ppl_increase")
"""Options that a run with a budget does not go by; its command names the budget alone."""


def build(findings: Findings) -> Report:
    """All that the report says. Strings are as they came; nothing is estimated."""
    view = head_view(findings.table, findings.selection)
    evaluation, details, config = findings.evaluation, findings.details, findings.config
    chosen = findings.selection.details or {}
    reliable = evaluation.get("reliable", chosen.get("reliable"))
    total = view.num_layers * view.num_heads
    report = Report(
        model=_model_name(evaluation, config),
        subtitle=_subtitle(findings, total),
        headline=str(evaluation.get("headline") or nothing_found(chosen)),
        warnings=tuple(summary.warnings(evaluation, details, reliable=reliable)),
        sections=_sections(findings, view),
        command=_command(config),
        options=tuple((str(k), _option(v)) for k, v in _options(config)),
        versions=tuple(_versions(evaluation, config, details)),
        first=first_screen(findings),
    )
    report.facts.update(_facts(findings, report))
    return report


def _sections(findings: Findings, view: HeadView) -> tuple[Section, ...]:
    config, details, evaluation = findings.config, findings.details, findings.evaluation
    found = (
        sections.results(evaluation),
        sections.next_steps(findings),
        sections.attempts(findings.attempts),
        sections.search(findings.selection.details),
        *_chosen(findings, view),
        sections.rests_on(details, findings.selection),
        sections.glance(findings.glance),
        sections.compare(findings.compare),
        sections.reproduce(findings.reproduce),
        sections.axes(findings.axes),
        sections.agree(findings.agree),
        sections.interactions(findings.interactions),
        sections.transfer(findings.transfer),
        sections.side_by_side(findings.examples, evaluation, details),
        sections.reading(
            str(config.get("estimator", "token-gradient")), str(config.get("toxicity_input", ""))
        ),
    )
    return tuple(section for section in found if section is not None)


def _chosen(findings: Findings, view: HeadView) -> tuple[Section | None, ...]:
    """Maps and tables of single heads; of other units, which are too many or no heads, by layer."""
    if findings.table.unit != "head":
        return (sections.pruned_units(findings.selection, findings.table),)
    if findings.selection.average is not None:
        explored = explorer(findings, view)
        return (sections.averaged(findings.selection), sections.head_map(view, explored))
    return (
        sections.head_map(view, explorer(findings, view)),
        sections.pruned_heads(findings.selection, view, findings.details),
    )


def _subtitle(findings: Findings, total: int) -> str:
    selection, unit = findings.selection, findings.table.unit
    if selection.average is not None:
        tried = nothing_found(selection.details) and not findings.evaluation
        best = "nothing changed; the best that was tried: " if tried else ""
        return f"{best}{selection.described}"
    count = len(selection.by_layer if unit == "layer" else selection.heads)
    if nothing_found(selection.details) and not findings.evaluation:
        return f"nothing pruned; the best set tried: {count} of {total} {unit}s"
    return f"{count} of {total} {unit}s pruned"


def _facts(findings: Findings, report: Report) -> dict[str, Any]:
    """report.json: the run's files under their names, each head's row of the table as well."""
    optional = {name: getattr(findings, name) for name in (*EXPERIMENTS, "glance")}
    return {
        "levelhead_report": FORMAT,
        "model": report.model,
        "headline": report.headline,
        "warnings": list(report.warnings),
        "command": report.command,
        "versions": dict(report.versions),
        "config": dict(findings.config),
        "selection": findings.selection.to_json(),
        "evaluation": dict(findings.evaluation),
        "details": dict(findings.details),
        **_rows(findings),
        **{name: dict(data) for name, data in optional.items() if data is not None},
    }


def _rows(findings: Findings) -> dict[str, Any]:
    """Every row of the table; of neurons, which are tens of thousands, scores.csv has them."""
    if findings.table.unit == "neuron":
        return {}
    return {f"{findings.table.unit}s": findings.table.frame.to_dict(orient="records")}


def _model_name(evaluation: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    name = evaluation.get("model") or config.get("model")
    return str(name) if name else "the embedded model"


def _options(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(k, v) for k, v in config.items() if k not in (_RUN_MARK, _VERSIONS)]


def _option(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _command(config: Mapping[str, Any]) -> str:
    """The command line that starts the same run in another folder; empty without options."""
    words = started_by(config)
    left_out = {"model"} if config.get("budget") is None else {"model", *_CHOSEN_BY_A_SEARCH}
    for name, value in _options(config):
        if name in left_out or value is None or isinstance(value, Mapping):
            continue
        flag = "--" + str(name).replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                words += [flag, str(item)]
    return shlex.join([*words, "--out", "FOLDER"]) if config else ""


def _versions(*sources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The versions a stage recorded, and that of the levelhead that made the report."""
    recorded = next((v for source in sources if (v := mapping(source, _VERSIONS))), {})
    rows = [(str(name), str(version)) for name, version in recorded.items()]
    try:
        own = metadata.version("levelhead")
    except metadata.PackageNotFoundError:
        return rows
    return [*rows, ("levelhead (this report)", own)]
