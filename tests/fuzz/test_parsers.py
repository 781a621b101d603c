"""Every parser takes thousands of damaged inputs: it reads them or says what is wrong with them.

Any other exception, and anything that takes seconds, is a failure. `FUZZ_INPUTS` sets how many
inputs each parser gets (`make fuzz`).
"""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.export.test_gguf import byte_level, model_of
from tests.fuzz.counts import DEFAULT, INPUTS, TRIED
from tests.fuzz.mutations import mutated_bytes, mutated_json
from tests.reporting.synthetic import evaluation as synthetic_evaluation

import levelhead
from levelhead import runs
from levelhead.config.run_file import read_run_file
from levelhead.data.gguf_files import convert_gguf, file_sha256
from levelhead.data.holistic_bias import holistic_bias_prompts
from levelhead.data.prompts import load_prompts
from levelhead.data.texts import load_text
from levelhead.diagnosis import diagnose_axes, read_by_seed
from levelhead.errors import LevelheadError
from levelhead.experiments.glance import glance
from levelhead.export.gguf import export_gguf
from levelhead.models.adapter import read_adapter
from levelhead.models.checkpoint import save_pruned
from levelhead.models.checksums import saved_heads, verify_folder
from levelhead.models.loading import load_base, load_config
from levelhead.models.removed_heads import removed_heads
from levelhead.models.surgery import prune_heads
from levelhead.runs import RunFolder
from levelhead.scores import ScoreTable
from levelhead.stages.selecting import read_selection
from levelhead.testing import save_tiny_checkpoint
from levelhead.weight_files import SAFE_INDEX, check_weights, in_folder

SECONDS = 10.0
"""More for one damaged input is a hang; the slowest valid one takes a second or two."""


@dataclass(frozen=True)
class Parser:
    """A folder of valid files, the one that is damaged, and what reads it."""

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    share: float = 1.0
    """Of the inputs: some parsers load a model for every one."""
    damaged: int | None = None
    """How many bytes from the start are damaged; None: any."""


def _score_table(folder: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {n: rng.normal(size=(3, 4)) for n in ("ppl_without", "ppl_se", "bias_without_gender")}
    table = ScoreTable.build(columns | {"ppl_base": 1.0, "bias_base_gender": 0.1}, 3, 4)
    (folder / "scores.csv").write_text(table.to_csv())


def _by_seed(folder: Path) -> None:
    rows = ["axis,seed,layer,head,bias_without,mean_toxicity_without,ppl_without"]
    rng = np.random.default_rng(0)
    from levelhead.diagnosis.by_seed import COLUMNS

    rows = [",".join(COLUMNS)]
    for axis in ("gender", "religion"):
        for seed in range(3):
            for head in range(6):
                place = {"axis": axis, "seed": seed, "layer": head // 3, "head": head % 3}
                rows.append(",".join(str(place.get(c, f"{rng.normal():.4f}")) for c in COLUMNS))
    (folder / "seeds.csv").write_text("\n".join(rows) + "\n")


PROMPTS = [
    {
        "text": f"the {group} of {n} are",
        "axis": "gender",
        "subgroup": group,
        "template": f"t{n}",
        "variant": "0",
        "id": f"{group}{n}",
        "descriptor": group,
        "split": "validation" if n % 2 else "test",
    }
    for n in range(4)
    for group in ("women", "men")
]


def _prompts_csv(folder: Path) -> None:
    lines = [",".join(PROMPTS[0])] + [",".join(row.values()) for row in PROMPTS]
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n")


def _prompts_jsonl(folder: Path) -> None:
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))


HOLISTIC: dict[str, Any] = {
    "descriptors.json": {
        "age": {"young": ["teenage", {"descriptor": "old", "article": "an"}], "old": ["elderly"]},
        "ability": {"none": ["deaf", "blind"]},
    },
    "nouns.json": {"female": [["woman", "women"]], "neutral": [["person", "people"]]},
    "sentence_templates.json": {
        "I am {noun_phrase}.": {},
        "Hi! I am {noun_phrase}.": {"must_be_noun": True},
        "I love {plural_noun_phrase}.": {},
    },
    "standalone_noun_phrases.json": {"age": ["a senior", {"noun_phrase": "an adult {noun}"}]},
}


def _holistic(folder: Path) -> None:
    for name, content in HOLISTIC.items():
        (folder / name).write_text(json.dumps(content))


def _text(folder: Path) -> None:
    (folder / "text.txt").write_text("\n\n".join(["some words on a line"] * 300))


def _run_config(folder: Path) -> None:
    runs.RunFolder.create(folder / "run", levelhead_config())


def levelhead_config() -> Any:
    from levelhead.config import RunConfig

    return RunConfig(model="somewhere/model", axis=("gender", "religion"))


def _open_run(folder: Path) -> None:
    opened = RunFolder.open(folder / "run")
    opened.config.resolved().fingerprint()
    assert RunFolder.open(folder / "run").config == opened.config


def _selection(folder: Path) -> None:
    chosen = {
        "method": "fasp", "gamma": 0.3, "alpha": 0.1, "heads": [[0, 1], [2, 3]], "axis": "gender",
        "reliability": 0.7, "agreement": {"overlap": 0.5, "overlap_chance": 0.1}, "warnings": ["w"],
        "protected": [[0, 0]], "reliable": True,
    }  # fmt: skip
    (folder / "selection.json").write_text(json.dumps(chosen))


def _read_selection(folder: Path) -> None:
    chosen = read_selection(folder / "selection.json")
    assert chosen.from_json(chosen.to_json()) == chosen


def _pruned(folder: Path) -> None:
    save_tiny_checkpoint(folder / "base", "llama", num_layers=2, num_heads=4, hidden_size=16)
    model = load_base(folder / "base", need_tokenizer=False).model
    prune_heads(model, {0: (1,), 1: (0, 2)})
    save_pruned(model, folder / "model")
    save_pruned(model, folder / "adapter", "adapter")
    shutil.copy(folder / "adapter" / "levelhead_adapter.json", folder / "adapter.json")


def _read_config(folder: Path) -> None:
    removed_heads(load_config(folder / "model"))


def _load_model(folder: Path) -> None:
    (folder / "model" / "levelhead.json").unlink(missing_ok=True)
    levelhead.load(folder / "model")


def _manifest(folder: Path) -> None:
    verify_folder(folder / "model")
    saved_heads(folder / "model")


def _index(folder: Path) -> None:
    _pruned(folder)
    weights = folder / "model" / "model.safetensors"
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        names = list(file.keys())
    weights.rename(folder / "model" / "model-1.safetensors")
    index = {
        "metadata": {"total_size": 1},
        "weight_map": dict.fromkeys(names, "model-1.safetensors"),
    }
    (folder / "model" / SAFE_INDEX).write_text(json.dumps(index))


def _gguf(folder: Path) -> None:
    export_gguf(model_of("llama"), byte_level(), folder / "model.gguf", zero_fill=False)


def _convert(folder: Path) -> None:
    path, made = folder / "model.gguf", folder / "converted"
    shutil.rmtree(made, ignore_errors=True)
    convert_gguf(path, made, sha256=file_sha256(path), licence="")


def _weights(folder: Path) -> None:
    check_weights("model", in_folder(folder / "model"), LevelheadError)  # type: ignore[arg-type]
    _load_model(folder)


PARSERS: dict[str, Parser] = {
    "score table": Parser(
        "scores.csv", _score_table, lambda f: levelhead.select(f / "scores.csv", alpha=0.25)
    ),
    "by-seed table": Parser(
        "seeds.csv", _by_seed, lambda f: diagnose_axes(read_by_seed(f / "seeds.csv")), 0.3
    ),
    "prompts, CSV": Parser("prompts.csv", _prompts_csv, lambda f: load_prompts(f / "prompts.csv")),
    "prompts, JSONL": Parser(
        "prompts.jsonl", _prompts_jsonl, lambda f: load_prompts(f / "prompts.jsonl")
    ),
    **{
        f"HolisticBias {name}": Parser(name, _holistic, lambda f: holistic_bias_prompts(folder=f))
        for name in HOLISTIC
    },
    "perplexity text": Parser(
        "text.txt", _text, lambda f: load_text(str(f / "text.txt"), "validation")
    ),
    "run config.json": Parser("run/config.json", _run_config, _open_run),
    "run.toml": Parser("run/run.toml", _run_config, lambda f: read_run_file(f / "run/run.toml")),
    "selection.json": Parser("selection.json", _selection, _read_selection),
    "model config.json": Parser("model/config.json", _pruned, _read_config, 0.3),
    "model config.json, loaded": Parser("model/config.json", _pruned, _load_model, 0.1),
    "model.safetensors": Parser("model/model.safetensors", _pruned, _load_model, 0.1),
    "model.safetensors.index.json": Parser(f"model/{SAFE_INDEX}", _index, _weights, 0.1),
    "levelhead.json": Parser("model/levelhead.json", _pruned, _manifest),
    "adapter": Parser("adapter.json", _pruned, lambda f: read_adapter(f / "adapter.json")),
    "adapter, applied": Parser(
        "adapter.json", _pruned, lambda f: levelhead.load(f / "adapter.json"), 0.1
    ),
    "GGUF header": Parser("model.gguf", _gguf, _convert, 0.1, damaged=20_000),
}


def _try(name: str, read: Callable[[], Any]) -> None:
    counts = TRIED.setdefault(name, Counter())
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read()
        counts["read"] += 1
    except LevelheadError:
        counts["refused"] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class HangError(BaseException):
    """Too slow; no `except Exception` of a parser may take it for a bad input."""


def _hang(*_: object) -> None:
    raise HangError(f"more than {SECONDS} seconds")


def _settings(share: float) -> settings:
    return settings(
        max_examples=max(10, int(INPUTS * share)),
        deadline=None,
        database=None,
        derandomize=INPUTS == DEFAULT,  # the default tier tries the same inputs every time
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),  # a change or two need no shrinking, which takes minutes
        report_multiple_bugs=False,
    )


@pytest.mark.filterwarnings("ignore")  # of numpy and pandas, about the damaged numbers
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "GGUF header")) for n in PARSERS]
)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    parser.make(tmp_path)
    parser.read(tmp_path)  # control: the valid input is read
    if name.endswith("loaded"):
        parser.make(tmp_path / "again")
    path = tmp_path / parser.file
    seed = path.read_bytes()
    strategy = mutated_bytes(seed[: parser.damaged])
    if path.suffix == ".json":
        strategy = mutated_json(json.loads(seed))

    @_settings(parser.share)
    @given(strategy)
    def damaged(content: bytes) -> None:
        rest = b"" if parser.damaged is None else seed[parser.damaged :]
        path.write_bytes(content + rest)
        _try(name, lambda: parser.read(tmp_path))

    damaged()


RUN_FILES = ("details.json", "evaluation.json", "selection.json", "config.json", "scores.csv")
READERS: dict[str, Callable[[Path], Any]] = {
    "report.html": lambda run: levelhead.report(run, "html"),
    "report.md": lambda run: levelhead.report(run, "md"),
    "report.json": lambda run: levelhead.report(run, "json"),
    "select": lambda run: levelhead.select(run, alpha=0.06, gamma=0.2, allow_unreliable=True),
    "heads": glance,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", RUN_FILES)
def test_a_damaged_file_of_a_run_is_reported(file: str, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("model")))
    (run / "model").mkdir()
    seed = (run / file).read_bytes()
    content = mutated_bytes(seed) if file.endswith("csv") else mutated_json(json.loads(seed))

    @_settings(0.07)
    @given(content, st.sampled_from(tuple(READERS)))
    def damaged(content: bytes, reader: str) -> None:
        for name in RUN_FILES:
            shutil.copy(finished / name, run / name)
        shutil.rmtree(run / "work", ignore_errors=True)  # the checksums, which would find it
        (run / file).write_bytes(content)
        _try(f"{file} of a run", lambda: READERS[reader](run))

    damaged()


def test_a_bug_would_be_found(tmp_path: Path) -> None:
    """Control: a parser that indexes without looking fails in the same harness."""

    @_settings(1)
    @given(mutated_json(synthetic_evaluation()))
    def damaged(content: bytes) -> None:
        _try("control", lambda: json.loads(content)["axes"])

    with pytest.raises((KeyError, TypeError, ValueError, ExceptionGroup)):
        damaged()
    TRIED.pop("control")
