"""What is pushed, to whom, and what is said when that fails; against a stand-in of the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.sharing.conftest import Hub

from levelhead.errors import ConfigError, ModelError, RunFolderError
from levelhead.sharing.hub import push


def test_the_model_and_its_card_are_sent_and_nothing_else(run: Path, hub: Hub) -> None:
    (run / "model" / "diary.md").write_text("private")
    (run / "model" / ".env").write_text("secret")
    plans = []
    url = push(run, "me/pruned", private=True, announce=plans.append)
    assert url.endswith("/me/pruned")
    assert hub.created[0]["name"] == "pruned"
    assert hub.created[0]["organization"] == "me"
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    assert set(hub.files) == set(plans[0].files)
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= set(hub.files)
    assert not {"diary.md", ".env"} & set(hub.files)
    for name, content in hub.files.items():
        assert content == (run / "model" / name).read_bytes()
    assert plans[0].num_bytes == sum(map(len, hub.files.values()))
    card = ModelCard(hub.files["README.md"].decode())
    assert "levelhead" in card.data.tags
    assert "# pruned" in card.text
    assert hashlib.sha256(hub.files["model.safetensors"]).hexdigest() in card.text
    assert hub.tokens == {"Bearer hf_test"}


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "token is not valid"), (403, "may not write there"), (404, "no such user")],
)
def test_a_refusal_says_why(run: Path, hub: Hub, status: int, message: str) -> None:
    hub.refuse = status
    with pytest.raises(ModelError, match=message):
        push(run, "someone-else/pruned")
    assert hub.files == {}


def test_without_a_token_or_a_name_nothing_is_asked(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'me/pruned/x' is not the name of a repository"):
        push(run, "me/pruned/x")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"no token.*hf auth login"):
        push(run, "me/pruned")
    with pytest.raises(RunFolderError, match="not a run folder"):
        push(tmp_path, "me/pruned")
    assert hub.asked == []


def test_what_shall_be_private_is_not_sent_to_a_public_place(run: Path, hub: Hub) -> None:
    hub.private = False
    with pytest.raises(ModelError, match="exists already and is public"):
        push(run, "me/pruned", private=True)
    assert hub.files == {}
    push(run, "me/pruned")
    assert hub.files


def test_no_network(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        push(run, "me/pruned")
    assert hub.asked == []
