"""The report as Markdown: the same facts as on the page, for repositories, issues and terminals.

Every text that is not a number of ours is escaped, so that names, options and generated text stay
text in any Markdown reader, with or without HTML. Generated text stands in code fences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from levelhead.reporting.build import build
from levelhead.reporting.content import Example, Plot, Report, Section, Table, Text, Value
from levelhead.reporting.escape import visible
from levelhead.reporting.findings import Findings

_PUNCTUATION = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")
_AUTOLINK = re.compile(r"(?i)(:)(?=//)|(?<=www)(\.)|(?<=mailto)(:)|(@)")
_LINE_START = re.compile(r"^([-+=](?=[\s=-]|$)|\d{1,9}(?=[.)](?:\s|$)))")


def render_markdown(findings: Findings, *, images: str = "") -> str:
    """The report as CommonMark with pipe tables.

    Args:
        findings: as for the page.
        images: kind of the plots' image files ("svg", "png") that stand in `plots/` beside the
            report; they are shown then. Empty: no images.
    """
    report = build(findings)
    return "\n\n".join(_blocks(report, images)).rstrip() + "\n"


def text_of(text: str) -> str:
    """Text for a Markdown paragraph, heading or table cell, on one line."""
    escaped = _PUNCTUATION.sub(r"\\\1", visible(" ".join(text.split())))
    # An entity is text to every reader, and no start of a link, list or rule.
    escaped = _AUTOLINK.sub(lambda match: f"&#{ord(match[0])};", escaped)
    return _LINE_START.sub(lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", escaped)


def fenced(text: str, language: str = "text") -> str:
    """Text in a code fence that nothing in it can close."""
    shown = visible(text, multiline=True)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _blocks(report: Report, images: str) -> Iterator[str]:
    yield "# Attention heads pruned for lower measured bias"
    subtitle = f" ({text_of(report.subtitle)})" if report.subtitle else ""
    yield f"Model: **{text_of(report.model)}**{subtitle}"
    if report.headline:
        yield f"**{text_of(report.headline)}**"
    if report.warnings:
        yield "## Please note"
        yield "\n".join(f"- {text_of(warning)}" for warning in report.warnings)
    for section in report.sections:
        if images or section.tables or section.points or section.examples:
            yield from _section(section, images)
    yield "## Options and versions"
    if report.command:
        yield "To repeat the run in another folder:"
        yield fenced(report.command, "sh")
    if report.options:
        rows = [["Option", "Value"], *([text_of(k), text_of(v)] for k, v in report.options)]
        yield _pipes(rows, [False, False])
    if report.versions:
        yield ", ".join(f"{text_of(name)} {text_of(version)}" for name, version in report.versions)


def _section(section: Section, images: str) -> Iterator[str]:
    yield f"## {text_of(section.title)}"
    yield from (text_of(text) for text in section.intro)
    if images:
        yield from (_image(plot, images) for plot in (*section.plots, *section.more_plots))
    for table in section.tables:
        if table.title:
            yield f"### {text_of(table.title)}"
        yield _table(table)
        for group in table.groups:
            for _, note in group.notes:
                yield f"{text_of(group.title)}: {text_of(note)}"
        if table.note:
            yield text_of(table.note)
    if section.points_title:
        yield f"### {text_of(section.points_title)}"
    if section.points:
        leads = (f"**{text_of(lead)}** " if lead else "" for lead, _ in section.points)
        told = (_code(text) if section.commands else text_of(text) for _, text in section.points)
        yield "\n".join(f"- {lead}{text}" for lead, text in zip(leads, told, strict=True))
    if section.examples:
        yield "**Warning: generated text can be offensive.**"
        for example in section.examples:
            yield from _example(example)


def _image(plot: Plot, kind: str) -> str:
    title = text_of(plot.title)
    return f"![{title}](plots/{plot.key}.{kind})\n\n{title}. {text_of(plot.caption)}"


def _table(table: Table) -> str:
    grouped = any(group.title for group in table.groups)
    heads = [text_of(column.label) for column in table.columns]
    rows = [["", *heads] if grouped else heads]
    for group in table.groups:
        for row in group.rows:
            cells = [_cell(value) for value in row.cells]
            if row.main:
                cells = [f"**{cell}**" if cell else "" for cell in cells]
            rows.append([text_of(group.title), *cells] if grouped else cells)
    return _pipes(rows, [False] * grouped + [column.number for column in table.columns])


def _pipes(rows: list[list[str]], right: list[bool]) -> str:
    rule = ["---:" if number else "---" for number in right]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return text_of(value)
    # Numbers are our own words; brackets alone make no link.
    return f"{value.text} {value.interval}".strip()


def _example(example: Example) -> Iterator[str]:
    yield "### Prompt" + (f" ({text_of(example.about)})" if example.about else "")
    yield fenced(example.prompt)
    for name, texts in (("Base model", example.base), ("Pruned model", example.pruned)):
        for number, one in enumerate(texts, 1):
            yield _heading(name, number, len(texts), one)
            yield fenced(one.text)


def _heading(name: str, number: int, of: int, one: Text) -> str:
    which = f" {number} of {of}" if of > 1 else ""
    return f"{name}{which}" + (f", toxicity {one.toxicity}" if one.toxicity else "") + ":"


def _code(command: str) -> str:
    """A command as it is to be typed; escaped as any text where it could end the code."""
    shown = visible(command)
    return text_of(command) if "`" in shown or "\n" in shown else f"`{shown}`"
