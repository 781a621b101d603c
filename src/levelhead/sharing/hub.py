"""Upload a run's pruned model, with its card, to the Hugging Face hub.

The only place of levelhead that sends anything: model/ of a run, file by file named beforehand, to
the repository that the user names, with the user's own token (hf auth login, or HF_TOKEN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead import runs
from levelhead.errors import ConfigError, ModelError
from levelhead.runs import RunFolder
from levelhead.sharing.run_card import write_card

SENT = (
    "*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "vocab.txt",
    "*.model", "*.py", "README.md",
)  # fmt: skip
"""What a saved model consists of; other files that stand in its folder stay at home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What would be sent where."""

    repo_id: str
    private: bool
    files: tuple[str, ...]
    num_bytes: int


def push(
    run: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    announce: Callable[[PushPlan], None] | None = None,
) -> str:
    """Write the model card anew and upload model/ of a run; returns the page's address.

    Args:
        run: the run folder.
        repo_id: USER/NAME or ORGANISATION/NAME; made where it does not exist.
        private: make it private; one that exists and is public is refused.
        announce: called with what is going to be sent, before anything is.

    Raises:
        ConfigError: a name that the hub does not allow.
        RunFolderError: nothing pruned in the run yet.
        ModelError: no token, no right to write there, or no network.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined, unused-ignore]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is not the name of a repository: {error}") from error
    folder = RunFolder.open(run, old=True)
    model = folder.require(runs.MODEL, f"prune {folder.path}")
    if get_token() is None:
        raise ModelError(
            "no token for the Hugging Face hub on this machine; run: hf auth login "
            "(or set HF_TOKEN). Nothing was sent"
        )
    write_card(folder, name=repo_id.rpartition("/")[2])
    files = sorted({path for pattern in SENT for path in model.glob(pattern) if path.is_file()})
    if announce:
        size = sum(path.stat().st_size for path in files)
        names = tuple(path.name for path in files)
        announce(PushPlan(repo_id=repo_id, private=private, files=names, num_bytes=size))
    api: Any = HfApi()
    with _failure_reported(repo_id):
        # None leaves the visibility to the account's default: "public" is asked for by nobody.
        repo = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo.repo_id).private:
            raise ModelError(
                f"{repo_id} exists already and is public; make it private on its page, or choose "
                "another name. Nothing was sent"
            )
        api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=str(model),
            allow_patterns=[path.name for path in files],
            commit_message="Pruned model and its card, by levelhead",
        )
    return str(repo)


@contextmanager
def _failure_reported(repo_id: str) -> Iterator[None]:
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reasons = {
            401: "the token is not valid; run: hf auth login",
            403: "the token may not write there; is it a write token, and the namespace yours?",
            404: "there is no such user or organisation, or the token may not see it",
            409: "the hub refuses it: the name is taken by something else",
        }
        what = reasons.get(status or 0, f"the hub refuses ({str(error).splitlines()[0]})")
        raise ModelError(f"{repo_id} was not pushed: {what}") from error
    except (OSError, hub.OfflineModeIsEnabled) as error:
        raise ModelError(
            f"{repo_id} was not pushed: the hub cannot be reached ({error})"
        ) from error
    except Exception as error:  # the HTTP client's own kinds, not all of them an OSError
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore2"):
            raise
        raise ModelError(
            f"{repo_id} was not pushed: the hub cannot be reached ({error})"
        ) from error
