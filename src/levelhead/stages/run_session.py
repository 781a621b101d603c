"""Sessions of a run folder: what they repair is fitted to what the run has read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.config import RunConfig
from levelhead.errors import ConfigError
from levelhead.journal import sums
from levelhead.models.repair import GROUP_AVERAGED
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scoring.problem import BiasProblem, SampledTexts
from levelhead.scoring.rounds import of_sample
from levelhead.session import Session
from levelhead.stages.kept_texts import kept_texts


def session_of(folder: RunFolder, config: RunConfig | None = None) -> Session:
    """A session of a run; what it repairs is the run's, whatever else it reads.

    Args:
        config: other options than the run's, of axes, prompts or seeds, say; none: the run's.
    """
    own = with_kept(Session(folder.config), folder)
    if config is None or config.resolved() == own.config:
        return own
    return Session(config, fitted_as=own)


def with_kept(session: Session, folder: RunFolder) -> Session:
    """The same session, which does not sample again what its run folder has kept."""
    session.kept = partial(first_kept, folder)
    return session


def prune_session(
    folder: RunFolder | None,
    heads: str | Path | HeadSelection,
    model: str | Path | None,
    revision: str | None,
    asked: Mapping[str, Any],
) -> Session:
    """What heads are pruned with by `prune`: options of a run, or of a model alone.

    Args:
        folder: the run that was named; none: `model` was.
        heads: the selection, or its file, which may be in a run folder.
        asked: `repair` and `text`, where they are given.

    Raises:
        ConfigError: group averages of a model alone.
    """
    if folder is not None:
        return with_kept(Session(replace(folder.config, **asked)), folder)
    named = RunConfig(model=None if model is None else str(model), revision=revision)
    if asked.get("repair") != GROUP_AVERAGED:
        return Session(replace(named, **asked))
    file = None if isinstance(heads, HeadSelection) else Path(heads)
    if file is None or not runs.is_run(file.parent):
        where = "the heads are" if file is None else f"{file} is"
        raise ConfigError(
            f"--repair {GROUP_AVERAGED} averages over the subgroups of a run's validation prompts, "
            f"and {where} in no run folder: give selection.json in the folder of the run, or name "
            "the run instead of the model (levelhead prune RUN --heads FILE --out DIR), or take "
            "--repair least-squares"
        )
    run = RunFolder.open(file.parent, old=True)
    session = Session(replace(run.config, model=named.model, revision=revision, **asked))
    own = (run.config.model, run.config.revision) == (named.model, revision)
    return with_kept(session, run) if own else session


def first_kept(folder: RunFolder, problem: BiasProblem) -> SampledTexts | None:
    """The first continuation of every validation prompt; None where nothing is scored yet.

    Raises:
        RunFolderError: as `kept_texts`.
    """
    path = folder.path / runs.CONTINUATIONS
    if not path.exists():
        return None
    sums.verify(path)
    return of_sample(kept_texts(path, problem), 0)
