"""Standard tasks through EleutherAI's lm-eval: a pruned model beside its base, on the same items.

Values and standard errors are lm-eval's. The difference is paired: per item, pruned minus base,
with a t interval over items, where a metric is a mean over items; other metrics have a difference
without an interval. Tasks come from lm-eval (their data from the hub) or from a folder of task
files.

Knows nothing of what a task measures; data contamination and prompt format are the user's to judge.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError, LevelheadError, missing_extra
from levelhead.metrics.intervals import linear_difference_interval
from levelhead.models.load_failures import first_line
from levelhead.models.loading import LoadedModel, load_base
from levelhead.progress import Progress, silent
from levelhead.runs import RunFolder
from levelhead.session import Session

RESULT = "tasks.json"
BOOTSTRAPS = 1000
"""Of lm-eval, for the standard error of metrics that are not means."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksPlan:
    """Which models answer which tasks."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    limit: int | None


@runs.writes("tasks")
def tasks(
    path: str | Path,
    tasks: Sequence[str],
    *,
    base: str | Path | None = None,
    include_path: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    dtype: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
    announce: Callable[[TasksPlan], None] | None = None,
) -> Json:
    """Answer standard tasks with a pruned model and its base; a run folder gets tasks.json.

    Args:
        path: a run folder (its base and pruned model are compared), or a model.
        tasks: names that lm-eval knows, or of task files in `include_path`.
        base: the model to compare with, where `path` is a model; none: that model alone.
        include_path: a folder of task files (YAML); with their data on disk, nothing is fetched.
        limit: only the first so many items of every task, for trying out.
        num_fewshot: examples before every item; none: as the task says.
        announce: called with the plan before long work.

    Returns:
        `tasks.TASK.METRIC` with `base`, `pruned` (`value`, `stderr`), `difference` (pruned minus
        base; `ci95` where it is a mean over items) and `higher_is_better` (docs/experiments.md).

    Raises:
        MissingExtraError: lm-eval is not installed.
        ConfigError: no or unknown tasks, data that cannot be had, numbers out of range.
        ModelError, RunFolderError: as elsewhere.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise missing_extra("Standard tasks", "lm-eval")
    for flag, value, least in (
        ("limit", limit, 2), ("num-fewshot", num_fewshot, 0), ("batch-size", batch_size, 1),
    ):  # fmt: skip
        if value is not None and value < least:
            raise ConfigError(f"--{flag} {value} is out of range; it must be at least {least}")
    wanted = tuple(dict.fromkeys(tasks))
    with _quiet():
        manager = _manager(wanted, include_path)
    sources = _sources(path, base)
    if announce:
        announce(TasksPlan(models=tuple(sources.values()), tasks=wanted, limit=limit))
    _load_data(manager, wanted)
    answers: dict[str, Json] = {}
    for which, source in sources.items():
        loaded = load_base(source, dtype=dtype, device=device)
        with _quiet():
            answers[which] = _answered(
                loaded, which, wanted, manager, limit, num_fewshot, batch_size, progress
            )
    found: Json = {
        "models": sources,
        "limit": limit,
        "lm_eval": version("lm-eval"),
        "tasks": compared(answers),
    }
    if runs.is_run(Path(path)):
        runs.write_json(Path(path) / RESULT, found)
    return found


def compared(answers: Mapping[str, Json]) -> dict[str, Json]:
    """Results of lm-eval by model, as task -> metric -> both values and their difference."""
    first = next(iter(answers.values()))
    found: dict[str, Json] = {}
    for task, row in first["results"].items():
        better = first.get("higher_is_better", {}).get(task, {})
        metrics = {}
        for key, value in row.items():
            metric, comma, taken = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = metric if taken == "none" else key
            entry: Json = {"higher_is_better": better.get(metric)}
            for which, answer in answers.items():
                entry[which] = _value(answer["results"][task], metric, taken)
            if {"base", "pruned"} <= set(answers):
                entry["difference"] = _difference(answers, task, metric, taken)
            metrics[name] = entry
        if metrics:
            found[task] = metrics
            found[task]["items"] = first.get("n-samples", {}).get(task, {}).get("effective")
    return found


def _value(row: Json, metric: str, taken: str) -> Json:
    stderr = row.get(f"{metric}_stderr,{taken}")
    value = float(row[f"{metric},{taken}"])
    return {
        "value": value if np.isfinite(value) else None,
        "stderr": float(stderr) if isinstance(stderr, int | float) and stderr == stderr else None,
    }


def _difference(answers: Mapping[str, Json], task: str, metric: str, taken: str) -> Json:
    values = [float(answers[m]["results"][task][f"{metric},{taken}"]) for m in ("pruned", "base")]
    items = [_items(answers[m], task, metric, taken) for m in ("pruned", "base")]
    paired = len(items[0]) == len(items[1]) >= 2 and all(
        np.isclose(row.mean(), value, rtol=1e-6, atol=1e-9)
        for row, value in zip(items, values, strict=True)
    )
    if not paired:  # not a mean over items: perplexities, F1, groups of tasks
        change = values[0] - values[1]
        return {"value": change if np.isfinite(change) else None, "ci95": None}
    estimate = linear_difference_interval(items[0] - items[1], np.arange(len(items[0])))
    return estimate.to_json()


def _items(answer: Json, task: str, metric: str, taken: str) -> Float[np.ndarray, " items"]:
    """Every item's value of a metric, in the order of the task; empty where they are no numbers."""
    rows = [row for row in answer.get("samples", {}).get(task, []) if row["filter"] == taken]
    values = [row.get(metric) for row in sorted(rows, key=lambda row: int(row["doc_id"]))]
    if not all(isinstance(v, int | float | np.number) for v in values):
        return np.zeros(0)
    return np.array(values, dtype=float)


def _sources(path: str | Path, base: str | Path | None) -> dict[str, str]:
    if runs.is_run(Path(path)):
        if base is not None:
            raise ConfigError(f"{path} is a run folder and has a base of its own; leave out --base")
        folder = RunFolder.open(path, old=True)
        pruned = folder.require(runs.MODEL, f"prune {path}")
        return {"base": Session(folder.config).base_path, "pruned": str(pruned)}
    found = {} if base is None else {"base": Session(RunConfig(model=str(base))).base_path}
    return found | {"pruned": Session(RunConfig(model=str(path))).base_path}


def _manager(wanted: Sequence[str], include_path: str | Path | None) -> Any:
    """lm-eval's index of tasks: the user's folder alone where that has them all.

    Raises:
        ConfigError: no task, no such folder, or a task that is in neither.
    """
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    if not wanted:
        raise ConfigError("no task given; name at least one with --tasks, as in --tasks hellaswag")
    if include_path is not None:
        folder = Path(include_path)
        if not folder.is_dir():
            raise ConfigError(f"--include-path {folder} is not a folder of task files")
        try:
            manager = TaskManager(include_path=str(folder.resolve()), include_defaults=False)
        except Exception as error:  # YAML of any kind, read by another package
            raise ConfigError(f"--include-path {folder}: {first_line(error)}") from error
        if set(wanted) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    for name in wanted:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"lm-eval knows no task {name!r}{hint}")
    return manager


def _load_data(manager: Any, wanted: Sequence[str]) -> None:
    """Load the tasks' data once before any model, so that what is missing is known early."""
    from lm_eval.tasks import get_task_dict  # type: ignore[import-untyped, unused-ignore]

    for name in wanted:
        try:
            with _quiet():
                get_task_dict([name], manager)
        except Exception as error:  # data sets fail in as many ways as there are loaders
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"task {name!r} cannot be loaded: {reason}; its data come from the hub unless its "
                "file names a local file: see --include-path"
            ) from error


def _answered(
    loaded: LoadedModel,
    which: str,
    wanted: Sequence[str],
    manager: Any,
    limit: int | None,
    num_fewshot: int | None,
    batch_size: int,
    progress: Progress,
) -> Json:
    import lm_eval  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped, unused-ignore]

    class Reporting(HFLM):  # type: ignore[misc, unused-ignore]
        """lm-eval's model, with our progress in place of its own."""

        advance: Callable[[int], None]

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            out = super()._model_call(inps, *args, **kwargs)
            self.advance(len(inps))
            return out

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            out = super()._model_generate(context, *args, **kwargs)
            self.advance(len(context))
            return out

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
            with progress(f"{which}: likelihoods", len(requests)) as self.advance:
                return super()._loglikelihood_tokens(requests, **kwargs | {"disable_tqdm": True})

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(f"{which}: continuations", len(requests)) as self.advance:
                return super().generate_until(requests, disable_tqdm=True)

    model = Reporting(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    try:
        found: Json | None = lm_eval.simple_evaluate(
            model,
            tasks=list(wanted),
            task_manager=manager,
            limit=limit,
            num_fewshot=num_fewshot,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=True,
            # None: global random states are left alone; few-shot examples have a seed of their own.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    except LevelheadError:
        raise
    except ValueError as error:  # how lm-eval refuses a task (unsafe code, few-shot without data)
        raise ConfigError(f"lm-eval refuses {', '.join(wanted)}: {error}") from error
    return found or {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's remarks and bars; errors still come through."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
