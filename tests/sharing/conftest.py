"""A finished tiny run, and a stand-in of the hub's HTTP interface on this machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from tests.experiments.conftest import finished, inputs, options, run

__all__ = ["finished", "inputs", "options", "run"]


@dataclass
class Hub:
    """What the stand-in was asked and sent."""

    refuse: int = 0
    """Answer creation, and questions about the repository, with this status, if not 0."""
    private: bool = True
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in; the hub client talks to nothing else meanwhile."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(f"GET {self.path}")
            known = {"sha": "0" * 40, "siblings": [], "id": "me/pruned", "private": state.private}
            self._reply(state.refuse or 200, {"error": "no"} if state.refuse else known)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append(f"POST {self.path}")
            state.tokens.add(self.headers.get("Authorization"))
            if self.path == "/api/repos/create":
                state.created.append(json.loads(body))
                if state.refuse:
                    self._reply(state.refuse, {"error": "no"})
                else:
                    self._reply(200, {"url": f"{url}/me/pruned", "name": "me/pruned"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                answer = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
                self._reply(200, {"files": answer})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        state.files[value["path"]] = base64.b64decode(value["content"])
                reply = {"commitUrl": f"{url}/me/pruned/commit/1", "commitOid": "1" * 40}
                self._reply(200, reply | {"pullRequestUrl": None})
            else:
                self._reply(200, {"errors": [], "warnings": []})

        def _reply(self, status: int, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
