"""No network that the user did not ask for: everything below runs with every socket blocked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.conftest import inputs, options

import levelhead
from levelhead.errors import ModelError
from levelhead.models.loading import load_base
from levelhead.permissions import pickles_allowed
from levelhead.weight_files import no_conversion

__all__ = ["inputs", "options"]

BLOCKED = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args[1:]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
socket.create_connection = refuse
"""


class NetworkUsed(BaseException):
    """Not an Exception: code that catches all of those must not hide it."""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connections and look-ups of names that were tried; each raises."""
    calls: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        calls.append(args)
        raise NetworkUsed(args)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return calls


def test_a_whole_run_of_local_files(
    tried: list[Any], inputs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    quick = options | {"samples": 2, "max_samples": 2}
    levelhead.score(str(inputs / "model"), out=out, **quick)
    levelhead.select(out, gamma=0.2, alpha=0.06, allow_unreliable=True)
    levelhead.prune(out)
    levelhead.evaluate(out)
    levelhead.report(out)
    levelhead.load(out / "model")
    assert tried == []


def test_the_control_a_name_on_the_hub_is_asked_for(tried: list[Any]) -> None:
    """The block works: a name on the hub is the user's wish for the network."""
    with pytest.raises((NetworkUsed, ModelError)):
        load_base("nobody/has-this-model")
    assert tried


def test_pickles_are_not_sent_to_a_converter(
    tried: list[Any], inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would send the model's name and the user's token to a service on the hub."""
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    seen = []
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(os.environ.get("DISABLE_SAFETENSORS_CONVERSION"))
        return load(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noting)
    with pickles_allowed():
        load_base(inputs / "model")
        levelhead.load(inputs / "model")
    assert seen == ["1", "1"]
    assert "DISABLE_SAFETENSORS_CONVERSION" not in os.environ  # only for our own calls
    with no_conversion():
        assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "1"
    assert tried == []


@pytest.mark.parametrize(
    "statement",
    [
        "from levelhead.cli import cli; cli(['--help'], standalone_mode=False)",
        "import levelhead, levelhead.data.prompts; levelhead.load, levelhead.run; "
        "levelhead.data.prompts.load_prompts('builtin')",
    ],
)
def test_importing_asks_nobody(statement: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if "OFFLINE" not in k}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + statement],
        capture_output=True,
        text=True,
        env=environment | {"HF_HOME": str(tmp_path)},
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
