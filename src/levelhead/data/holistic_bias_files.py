"""The official HolisticBias v1.1 files: find them in a folder or fetch them, and read them.

The data is CC BY-SA 4.0 and is never part of levelhead: it is fetched from its public home at run
time, once, into the cache. Knows nothing of prompts.
"""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead.data.cache import cache_dir
from levelhead.errors import PromptError
from levelhead.json_files import read_json
from levelhead.network import is_offline

HOME = (
    "https://raw.githubusercontent.com/facebookresearch/ResponsibleNLP/main/"
    "holistic_bias/dataset/v1.1/"
)
FILES = (
    "descriptors.json",
    "nouns.json",
    "sentence_templates.json",
    "standalone_noun_phrases.json",
)
TIMEOUT_SECONDS = 20.0
MAX_BYTES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HolisticBiasFiles:
    """The parsed files, in the authors' own form."""

    descriptors: dict[str, dict[str, list[Any]]]
    """axis -> bucket -> descriptors, each a string or an object with "descriptor"."""
    nouns: dict[str, list[list[str]]]
    """gender -> [noun, plural] pairs."""
    templates: dict[str, dict[str, Any]]
    """template -> its restrictions, such as "must_be_noun"."""
    standalone: dict[str, list[Any]]
    """axis -> noun phrases that are not made of a descriptor and a noun."""


def read_files(folder: str | Path | None = None) -> HolisticBiasFiles:
    """Read the four files from `folder`, or from the cache, fetching them first if need be.

    Raises:
        PromptError: a file is missing, is not JSON of the expected form, or cannot be fetched.
    """
    home = _fetched() if folder is None else Path(folder)
    descriptors, nouns, templates, standalone = (_read(home / name) for name in FILES)
    return HolisticBiasFiles(
        descriptors=descriptors, nouns=nouns, templates=templates, standalone=standalone
    )


def _read(path: Path) -> Any:
    if not path.exists():
        raise PromptError(
            f"no {path.name} in {path.parent}: a HolisticBias v1.1 folder holds {', '.join(FILES)}"
        )
    content = read_json(path, PromptError, max_bytes=MAX_BYTES)
    if not isinstance(content, dict) or not content:
        raise PromptError(f"{path} is not a HolisticBias v1.1 file: expected a JSON object")
    return content


def _fetched() -> Path:
    """The cache folder, with all four files in it."""
    folder = cache_dir() / "holistic_bias_v1.1"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                if is_offline():
                    raise OSError(f"{name} is not there yet, and --offline fetches nothing")
                partial = folder / f"{name}.partial"
                partial.write_bytes(_download(HOME + name))
                partial.replace(folder / name)
    except OSError as error:  # urllib's URLError and timeouts are OSErrors
        raise PromptError(
            f"cannot fetch HolisticBias from {HOME} into {folder} ({error}); with the files in a "
            "local folder use --prompts holistic-bias:FOLDER"
        ) from error
    return folder


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 (HOME)
        content: bytes = response.read(MAX_BYTES + 1)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        json.loads(content)
    except ValueError as error:
        raise PromptError(f"{url} did not return the JSON file it should: {error}") from error
    return content
