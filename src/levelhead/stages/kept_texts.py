"""A run's own continuations, read back: other questions are asked of the very texts it scored.

They are checked against the prompts and the tokenizer, so that a folder that was edited, or whose
model or prompts changed since, is refused instead of being misread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from levelhead.errors import RunFolderError
from levelhead.json_files import parse_json
from levelhead.scoring.problem import BiasProblem, SampledTexts


def kept_texts(path: Path, problem: BiasProblem) -> SampledTexts:
    """The base model's continuations of a problem's prompts, from continuations.jsonl.

    Prompts of the run that the problem lacks are left out. `problem.samples` does not matter: all
    samples that the run drew are read, the same number for every prompt. Toxicities are those of
    the run's scorer.

    Raises:
        RunFolderError: the file is missing or damaged, lacks a prompt or a sample, or its tokens
            are not those of this tokenizer.
    """
    found = written_texts(path, read_rows(path), problem, "base")
    for index, ids, text in zip(found.prompt, found.tokens, found.texts, strict=True):
        said, _ = problem.texts(int(index), ids)
        if said != text:
            raise _changed(path, problem.prompts[int(index)].id)
    return found


def written_texts(
    path: Path, rows: Sequence[Mapping[str, Any]], problem: BiasProblem, model: str
) -> SampledTexts:
    """What a model ("base" or "pruned") wrote after a problem's prompts, as it stands in the file.

    As `kept_texts`, but tokens are not compared with texts: neither model nor tokenizer is asked.

    Args:
        path: of the file, for messages.
        rows: what `read_rows` read from it.

    Raises:
        RunFolderError: a prompt or a sample is missing, or drawn with another seed.
    """
    split = problem.prompts[0].split
    known: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if (row["split"], row["model"], row["axis"]) == (split, model, problem.axis):
            known[row["prompt_id"]][int(row["sample"])] = row
    lacking = [prompt.id for prompt in problem.prompts if prompt.id not in known]
    if lacking:
        raise RunFolderError(
            f"{path} has no continuation of {len(lacking)} of {len(problem.prompts)} {split} "
            f"prompts of axis {problem.axis!r} (the first: {lacking[0]!r}): the prompts have "
            "changed since the run; score again into another --out"
        )
    numbers = sorted(known[problem.prompts[0].id])
    prompt, sample, tokens, texts, toxicity = [], [], [], [], []
    for index, record in enumerate(problem.prompts):
        found = known[record.id]
        if sorted(found) != numbers or numbers != list(range(len(numbers))):
            raise RunFolderError(
                f"{path}: prompt {record.id!r} has samples {sorted(found)}, "
                f"{problem.prompts[0].id!r} has {numbers}; score again into another --out"
            )
        for number in numbers:
            row = found[number]
            ids = tuple(int(token) for token in row["token_ids"])
            if row["seed"] != problem.seed or not ids:
                raise _changed(path, record.id)
            prompt.append(index)
            sample.append(number)
            tokens.append(ids)
            texts.append(str(row["text"]))
            toxicity.append(float(row["toxicity"]))
    return SampledTexts(
        prompt=np.array(prompt),
        sample=np.array(sample),
        tokens=tuple(tokens),
        texts=tuple(texts),
        toxicity=np.array(toxicity),
    )


def _changed(path: Path, prompt: str) -> RunFolderError:
    return RunFolderError(
        f"{path}: the continuation of {prompt!r} is not what its tokens say under this model's "
        "tokenizer and this run's seed; score again into another --out"
    )


def read_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """All rows of continuations.jsonl, each with every field that is asked for.

    Raises:
        RunFolderError: it cannot be read, or a line is no continuation.
    """
    needed = {"prompt_id", "axis", "split", "model", "sample", "seed", "text", "token_ids"}
    try:
        # Not splitlines(): models write U+2028 and other characters it would split at.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise RunFolderError(f"cannot read {path}: {error}") from error
    rows = [parse_json(line, str(path), RunFolderError) for line in lines]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {*needed, "toxicity"} <= set(row):
            raise RunFolderError(f"{path}, line {number} is not a continuation of a run's")
    return rows
