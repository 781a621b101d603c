"""What can go wrong when transformers loads a model, as errors that say what to do.

Knows the exceptions of the hub client and what they mean; loads nothing. A config or weights that
somebody else wrote make transformers and torch raise anything at all, so everything else becomes
"cannot be loaded" with the kind of exception, which stays the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub

from levelhead.errors import LevelheadError, ModelError

WRAPPERS = {
    "_orig_mod.": "what torch.compile makes was saved",
    "module.": "what DataParallel makes was saved",
    "_fsdp_wrapped_module.": "what FSDP makes was saved",
    "base_model.model.": "what peft makes was saved",
}
"""What is in front of the names of tensors where a model was saved from inside of something."""
OFFLINE_WAYS = "a local folder works without network, and so does levelhead demo"


@contextmanager
def failure_reported(name: str) -> Iterator[None]:
    """Turn what transformers, the hub and safetensors raise into a ModelError with a remedy."""
    try:
        yield
    except (LevelheadError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        causes = list(_causes(error))
        if any(isinstance(cause, hub.GatedRepoError) for cause in causes):
            what = "needs a licence that you accept on its page, and a login (hf auth login)"
        elif any(isinstance(cause, hub.RevisionNotFoundError) for cause in causes):
            what = "is on the hub, but has no such revision"
        elif any(isinstance(cause, hub.RepositoryNotFoundError) for cause in causes):
            raise ModelError(
                f"{no_such_folder(name)}; as a name, it is not on the Hugging Face hub (or private)"
                f"{_from_here(name)}"
            ) from error
        elif any(_is_network_failure(cause) for cause in causes):
            raise ModelError(
                f"{no_such_folder(name)}; as a name, it is not in the local cache, and the Hugging "
                f"Face hub cannot be reached (offline?); {OFFLINE_WAYS}{_from_here(name)}"
            ) from error
        else:
            what = f"cannot be loaded: {described(error)}"
        if "safetensors" in what and "file named" in what:
            what += "; levelhead reads weights from safetensors or GGUF only"
        raise ModelError(f"{name} {what}") from error


def missing_tensors(report: Mapping[str, Any]) -> str | None:
    """What `from_pretrained` says of tensors that it did not find, for people; None: all are there.

    Args:
        report: transformers' loading info.
    """
    missing = sorted(report["missing_keys"])
    if not missing:
        return None
    what = f"lacks {len(missing)} tensors that its family needs, among them {missing[0]}"
    wrapped = set(report.get("unexpected_keys") or ())
    for prefix, saved in WRAPPERS.items():
        if any(name.startswith(prefix) for name in wrapped):
            what += (
                f"; its tensors are called {prefix}...: {saved}, not the model itself. Take "
                f"{prefix!r} off their names, or save the model that is inside"
            )
            break
    return what


def no_such_folder(name: str) -> str:
    """That a folder is not there, with the one that may be meant."""
    path = Path(name).expanduser()
    with suppress(OSError):
        beside = [one.name for one in path.parent.iterdir() if one.is_dir()]
        if close := get_close_matches(path.name, beside, n=1):
            return f"no such folder: {name} (did you mean {Path(name).parent / close[0]}?)"
    return f"no such folder: {name}"


def _from_here(name: str) -> str:
    """From where a relative path was looked for: a run that names one begins in its own place."""
    if Path(name).expanduser().is_absolute():
        return ""
    return f"; a relative path is looked for from {Path.cwd()}"


def _is_network_failure(error: BaseException) -> bool:
    known = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    return isinstance(error, known) or type(error).__name__ in ("ConnectError", "ConnectTimeout")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def described(error: BaseException) -> str:
    """The first line of an error, with its kind where the line alone would say little."""
    if isinstance(error, OSError | ValueError) and str(error).strip():
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
