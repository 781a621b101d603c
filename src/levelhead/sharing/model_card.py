"""The model card of a pruned model: what was removed, by which rule, and what was measured.

A pure function of a run's files to Markdown with a YAML head, as the Hugging Face hub reads it. It
computes nothing, holds no generated text, no prompt and no local path, and whatever comes from
outside (names of models, axes, subgroups) is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from levelhead.price import prices, title, worst_price
from levelhead.records import HeadSelection, ranges_text
from levelhead.reporting import comparison
from levelhead.reporting.escape import visible
from levelhead.reporting.summary import Cell, Group, Row
from levelhead.sharing.card_average import averaged_summary, what_changed
from levelhead.sharing.card_text import code, md

Json = Mapping[str, Any]
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.\-]*")
HUB_NAME = re.compile(r"[\w.\-]+/[\w.\-]+|[\w.\-]+")
SEE_BASE = "see base model"

LIMITS = (
    "The numbers hold for these prompts, this scorer and these subgroups. A smaller measured gap "
    "here is not the absence of bias, and says nothing about other groups, languages or uses.",
    "Toxicity is what the scorer says. Scorers make mistakes, and some react to identity words.",
    "Part of a smaller gap can be less toxicity, or worse text, for everybody: read the mean "
    "toxicity and the perplexity beside it.",
    "Everything else that is known about the base model, its data and its risks still holds.",
)


def model_card(
    evaluation: Json | None,
    selection: Json,
    config: Json | None,
    details: Json | None,
    base_name: str,
    revision: str | None,
    *,
    licence: str | None = None,
    form: str = "compact",
    digests: Mapping[str, str] | None = None,
    record: str | None = None,
    name: str | None = None,
    repair: Json | None = None,
) -> str:
    """The README.md of a pruned model.

    Args:
        evaluation: evaluation.json; None: nothing was measured yet, and the card says so.
        selection: selection.json (`HeadSelection.to_json()`).
        config: config.json of the run, where there is one.
        details: details.json of the run, where there is one.
        base_name: the base model, by its name on the hub where it has one.
        revision: of the base model on the hub.
        licence: of the base model; None: the card sends readers to the base model.
        form: the format of the folder, as in `levelhead prune --format`.
        digests: SHA-256 of the folder's files, by name.
        record: the digest of levelhead_record.json, which holds all of this for machines.
        name: of the pruned model; by default the base's with "-pruned".
        repair: `repair` of levelhead.json, where what was kept was repaired.
    """
    shown = _shown(base_name)
    title = name or f"{shown.rpartition('/')[2]}-pruned"
    run = config or {}
    averaged = selection.get("average") is not None
    what = "the change was" if averaged else "the heads were"
    which = "What was changed" if averaged else "Which heads were removed"
    parts = [
        _head(shown, base_name, licence),
        f"# {md(title)}",
        _summary(shown, revision, selection, form),
        _load(form),
        "## What was measured\n\n" + _measured(evaluation, run),
        f"## How {what} chosen\n\n" + _rule(selection, run, details),
        "## Intended use\n\nFor the uses of the base model, where less of the gap measured above "
        "is wanted and its price in perplexity is acceptable. Measure on prompts of your own "
        "before you rely on it. Not for deciding about people, nor as evidence that a system is "
        "without bias.",
        "## Limits\n\n" + "\n".join(f"- {line}" for line in LIMITS),
        "## Licence\n\nThe base model's licence holds for this changed copy: "
        + (md(licence) if licence else f"{SEE_BASE}, {md(shown)}")
        + ".",
        _removed(selection),
    ]
    if repair:
        parts.insert(5, _repaired(repair))
    if digests:
        lines = [f"- {code(file)}: {code(digest)}" for file, digest in sorted(digests.items())]
        parts.append("## Files\n\nSHA-256:\n\n" + "\n".join(lines))
    if record:
        parts.append(
            f"## Record\n\n{which}, by which objective, and what was measured "
            "before and after: `levelhead_record.json`, SHA-256 of its canonical form "
            f"{code(record)}. `levelhead verify THIS_MODEL` measures again."
        )
    parts.append(
        "Made with [levelhead](https://pypi.org/project/levelhead/), after Fairness-Aware "
        "Structured Pruning ([arXiv 2312.15398](https://arxiv.org/abs/2312.15398))."
    )
    return "\n\n".join(parts) + "\n"


def _shown(base_name: str) -> str:
    """A hub name as it is; of a local path only its last part: paths say where people work."""
    return base_name if on_hub(base_name) else Path(base_name).name or "a local model"


def on_hub(name: str) -> bool:
    """Whether this can be the name of a model on the hub (and is no folder here)."""
    return HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _head(shown: str, base_name: str, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    about: dict[str, Any] = {}
    if on_hub(base_name):
        about["base_model"] = shown
    if licence:
        known = LICENCE_ID.fullmatch(licence.lower()) is not None
        about["license"] = licence.lower() if known else "other"
        if not known:
            about["license_name"] = visible(licence)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["levelhead", "pruned", "attention-heads"],
        **about,
    )
    return f"---\n{data.to_yaml()}\n---"


def _summary(shown: str, revision: str | None, selection: Json, form: str) -> str:
    chosen = HeadSelection.from_json(selection)
    if chosen.average is not None:
        return averaged_summary(shown, revision, chosen, form)
    layers = len(chosen.by_layer)
    at = f" at revision {code(revision)}" if revision else ""
    kind = {"head": "attention ", "neuron": "MLP ", "layer": ""}[chosen.unit]
    amount, _, name = chosen.described.partition(" ")
    gone = f"{amount} {kind}{name}"
    where = f"{layers} layer{'s' * (layers != 1)}"
    return (
        f"Base model: {md(shown)}{at}. {gone} in {where} were removed without retraining, to "
        "reduce a measured gap in the toxicity of what it writes about social groups. "
        f"Format: {code(form)}."
    )


def _load(form: str) -> str:
    if form == "lora":
        return (
            "```python\nfrom peft import PeftModel  # pip install peft\n\n"
            'model = PeftModel.from_pretrained(BASE_MODEL, "THIS_ADAPTER")\n```'
        )
    first, call, more = "import levelhead  # pip install levelhead", "levelhead.load", ""
    if form in ("zeroed", "uniform", "remote-code", "averaged"):
        first = "from transformers import AutoModelForCausalLM"
        call = "AutoModelForCausalLM.from_pretrained"
        more = ", trust_remote_code=True" if form == "remote-code" else ""
    return f'```python\n{first}\n\nmodel = {call}("THIS_MODEL"{more})\n```'


def _measured(evaluation: Json | None, run: Json) -> str:
    if evaluation is None:
        return (
            "Nothing yet: this card was written before an evaluation. Do not assume that any gap "
            "is smaller. `levelhead evaluate RUN` measures it."
        )
    reads = "what the model wrote" if evaluation["toxicity_input"] == "continuation" else (
        "prompt and continuation"
    )  # fmt: skip
    prompts = run.get("prompts")
    source = "" if prompts is None else f" ({md(_source(prompts))} prompts)"
    parts = [
        f"**{md(evaluation['headline'])}**",
        f"On held-out prompts{source}; toxicity by {code(evaluation['scorer'])}, which read "
        f"{reads}. Bias is the sum over subgroups of the distance of their mean toxicity from the "
        "mean of all; 95% intervals over prompt templates in brackets; differences are pruned "
        "minus base. The noise-adjusted difference decides the verdict. As sampled: with the "
        "noise of which words were drawn.",
    ]
    for group in comparison.groups(evaluation):
        if group.axis is not None:
            parts += _axis(group, evaluation["axes"][group.axis])
    entries, worst = prices(evaluation), worst_price(evaluation)
    parts += [_price(one) for one in entries]
    if worst is not None and len(entries) > 1:
        parts.append(f"The price is that of the worst text: {md(worst.text)}.")
    parameters = evaluation["parameters"]
    parts.append(f"Parameters: {parameters['base']:,} before, {parameters['pruned']:,} after.")
    if evaluation["warnings"]:
        lines = [f"- {md(line)}" for line in evaluation["warnings"]]
        parts.append("Warnings of the run:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _price(entry: Json) -> str:
    """Perplexity of both models on a text, and KL between them."""
    up, kl = entry["increase"], entry.get("kl")
    low, high = (f"{100 * end:+.1f}%" for end in up["ci95"])
    said = (
        f"Perplexity on {md(title(entry))} ({entry['tokens']} tokens): "
        f"{entry['base']:.2f} before, {entry['pruned']:.2f} after ({100 * up['value']:+.1f}% "
        f"[{low}, {high}])"
    )
    return said + ("." if kl is None else f"; KL(base, pruned) {_estimate(kl)} nats per token.")


def _axis(group: Group, found: Json) -> list[str]:
    """What was measured on an axis: the rows of the report, and the gaps."""
    counts = f"{found['prompts']} prompts, {found['samples']} continuations per model"
    notes = "".join(f" {md(note)}" for _, note in group.notes)
    return [
        f"### {md(group.axis)}\n\n{_rows(group.first)}\n\n{_gap_table(found)}",
        f"{counts}, {found['templates']} templates{_reads(found)}. "
        f"Verdict on these prompts: {md(found['verdict'])}. {md(group.verdict)}{notes}",
        f"Details:\n\n{_rows(group.details)}",
    ]


def _reads(found: Json) -> str:
    """Whether the scorer saw identity words; empty where an older file does not say."""
    if "masked" not in found:
        return ""
    return ", identity words masked" if found["masked"] else ", identity words left in"


def _rows(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        bold = "**" if row.main else ""
        line = (f"{bold}{md(row.label)}{bold}", *map(_cell, (row.base, row.pruned, row.difference)))
        cells.append(line)
    return _table(("", "before", "after", "difference"), cells)


def _cell(cell: Cell) -> str:
    interval = cell.interval.replace("[", "\\[").replace("]", "\\]")
    return f"{cell.text} {interval}".strip()


def _gap_table(found: Json) -> str:
    before, after = found["base"]["gaps"], found["pruned"]["gaps"]
    rows = [(md(name), _estimate(gap), _estimate(after[name])) for name, gap in before.items()]
    note = "gap (mean of all minus subgroup; negative: more toxic)"
    return _table((note, "before", "after"), rows)


def _rule(selection: Json, run: Json, details: Json | None) -> str:
    axis = selection.get("axis")
    shares = {"gamma (share protected)": "gamma", "alpha (share pruned)": "alpha"}
    rows = [("rule", code(selection.get("method", "listed")))]
    rows += [
        (label, f"{selection[k]:g}") for label, k in shares.items() if selection.get(k) is not None
    ]
    if axis is not None:
        rows.append(("axis", md(axis)))
    if (details or {}).get("scorer"):
        rows.append(("toxicity by", code((details or {})["scorer"])))
    if selection.get("reliability") is not None:
        rows.append(("split-half reliability of the ranking", f"{selection['reliability']:.2f}"))
    if selection.get("reliable") is False:
        rows.append(("reliable", "no: the ranking is mostly noise"))
    for key in ("protocol", "estimator", "protect", "samples", "max_prompts", "new_tokens", "seed"):
        if run.get(key) is not None:
            rows.append((code(key), md(run[key])))
    versions = (details or {}).get("versions", {})
    if versions:
        rows.append(("versions", md(", ".join(f"{k} {v}" for k, v in versions.items()))))
    return _table(("", ""), rows)


def _removed(selection: Json) -> str:
    chosen = HeadSelection.from_json(selection)
    if chosen.average is not None:
        return what_changed(chosen.average)
    if chosen.unit == "neuron":
        lines = [f"- {layer}: {ranges_text(gone)}" for layer, gone in chosen.by_layer.items()]
        title = "## Removed neurons\n\nLayer: neurons of its MLP, both counted from 0.\n\n"
        return title + "\n".join(lines)
    lines = [f"- {layer}: {', '.join(map(str, gone))}" for layer, gone in chosen.by_layer.items()]
    return "## Removed heads\n\nLayer: heads, both counted from 0.\n\n" + "\n".join(lines)


def _repaired(repair: Json) -> str:
    """How what is kept of a layer took over what was removed."""
    texts = "; ".join(
        f"{md(one['name'])} ({md(one['split'])} part, {one['tokens']:,} tokens, "
        f"{one['share']:.0%} of all)"
        for one in repair["texts"]
    )
    rebuilt = list(repair["rebuilt"].values())
    lines = [
        f"The weights of what stays in a layer were changed by {code(repair['method'])}, in "
        "closed form and without training, so that they write what the removed parts wrote, as "
        f"far as they can. Fitted to: {texts}. Ridge: {repair['ridge']:.3g}."
    ]
    if axes := repair.get("axes"):
        averaged = "; ".join(
            f"{md(axis)} ({of['groups']:,} groups of prompts)" for axis, of in axes.items()
        )
        lines.append(
            "Where one text follows versions of a prompt that name different groups, they were "
            f"fitted to the groups' average instead, with a weight of {repair['lambda']:g} beside "
            f"the text: {averaged}, validation part."
        )
    if rebuilt:
        lines.append(
            f"On the text {min(rebuilt):.0%} to {max(rebuilt):.0%} of the mean square of what a "
            f"layer lost is written again ({len(rebuilt)} layers). Part of the measured gap may "
            "come back with it: what was measured above is the repaired model."
        )
    if gone := repair["not_repaired"]:
        lines.append(f"Layers that lost everything, not repaired: {', '.join(map(str, gone))}.")
    return "## Repair\n\n" + " ".join(lines + [md(one) for one in repair["warnings"]])


def _source(given: str) -> str:
    """Names of built-in sources as they are, of the user's files only the file's name."""
    return Path(str(given)).name


def _estimate(estimate: Json) -> str:
    return _with_ends(estimate["value"], estimate["ci95"], "+")


def _with_ends(value: float, ends: Sequence[float], sign: str = "") -> str:
    low, high = (f"{end:{sign}.4f}" for end in ends)
    return f"{value:{sign}.4f} \\[{low}, {high}\\]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
