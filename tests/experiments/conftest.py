"""A finished tiny run, for experiments on it."""

from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
from tests.pipeline.conftest import options, write_inputs

import levelhead
from levelhead import runs
from levelhead.testing import planted_model

__all__ = ["options"]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of the pipeline's tests, but the planted head is not so strong that every text is toxic.

    Where all texts of a subgroup are, nothing tells the token model what a toxic word adds.
    """
    return write_inputs(tmp_path_factory.mktemp("inputs"), planted_model(strength=0.8))


@pytest.fixture(scope="session")
def finished(
    inputs: Path,
    options: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run folder with everything in it; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "run"
    levelhead.run(str(inputs / "model"), out=out, **options)
    rmtree(out / runs.WORK)  # with the checksums, so that tests can edit what they read
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    return Path(copytree(finished, tmp_path / "run"))
