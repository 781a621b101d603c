"""The report as one HTML page that holds everything it needs and loads nothing.

It formats what `build` collected of a run's files and estimates nothing. It reads and writes no
run folder.

Everything from outside is escaped by jinja after `visible` (the environment's `finalize`, so no
expression of the template can miss it), labels of plots by `plot_text`, and the figures stand as
JSON in data blocks that nothing executes. A Content-Security-Policy forbids all loading, and all
scripts but the two of the page, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from levelhead.reporting.build import build
from levelhead.reporting.content import Plot, Report
from levelhead.reporting.escape import script_json, visible
from levelhead.reporting.findings import Findings

PAGE, PLOT = "page.html.jinja", "plot.html.jinja"


def render_report(findings: Findings) -> str:
    """One self-contained HTML page (about 5 MB, nearly all of it plotly.js).

    Sections of experiments stand where their file was given; a key that is missing leaves out
    what needs it.

    Returns:
        The page. It is valid UTF-8 whatever the strings hold, and the same for the same input.
    """
    report = build(findings)
    explorer = next((s.explorer for s in report.sections if s.explorer), None)
    script = _source("selection.js") + _source("draw.js") + _source("explorer.js")
    return _page(PAGE, script, report, report.plots, explorer)


def render_plot(report: Report, plot: Plot) -> str:
    """A self-contained page with one plot, its title and its caption."""
    return _page(PLOT, _source("draw.js"), report, (plot,), None)


def _page(template: str, script: str, report: Report, plots: tuple[Plot, ...], data: Any) -> str:
    plotly_script = _plotly()
    return (
        _environment()
        .get_template(template)
        .render(
            report=report,
            plots=plots,
            policy=_policy(plotly_script, script),
            plotly_script=Markup(plotly_script),  # noqa: S704 - the installed package's own file
            page_script=Markup(script),  # noqa: S704 - our own files
            figures=_data({plot.key: plot.figure for plot in plots}),
            explorer=_data(data),
        )
    )


def _data(data: Any) -> Markup:
    return Markup(script_json(data))  # noqa: S704 - escaped for a script element


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
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


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
