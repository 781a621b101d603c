"""Text to measure perplexity on: WikiText-2, the language reference inside CPython, prose that is
part of levelhead, or a file.

Every source has a validation part (for scores) and a test part (for evaluation) that share
nothing. The hash of a part is recorded, since two of the sources depend on what is installed.
Knows nothing of tokens or models: whether a text is long enough in tokens is for others to say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from levelhead.data.splits import digest, halve
from levelhead.errors import TextError, missing_extra
from levelhead.plain_text import read_utf8
from levelhead.records import Split

TEXT_SOURCES = ("wikitext-2", "pydoc", "literature", "everyday")
"""The sources with a name; anything else is a file."""
SHIPPED = {
    "literature": "public domain (CC0-1.0)",
    "everyday": "Apache-2.0",
}
"""Texts in the folder prose/ beside this file, and their licences."""
MIN_CHARACTERS = 2_000
"""Of one part; a few hundred tokens say nothing about perplexity."""
MAX_BYTES = 500_000_000
SHARED_PARAGRAPH_CHARACTERS = 40
"""Paragraphs shorter than this may repeat ("See also:") without linking two topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityText:
    """One part of a source, its name, the SHA-256 of its UTF-8 form, and its licence."""

    text: str
    name: str
    sha256: str
    licence: str


def load_text(source: str, split: Split) -> PerplexityText:
    """Load one part of a text.

    Args:
        source: "wikitext-2" (WikiText-2 raw, its own validation and test parts, rows joined by
            blank lines as in the transformers perplexity guide), "pydoc" (see `_pydoc`),
            "literature" (chapters of Moby-Dick), "everyday" (news, dialogue, fiction,
            instructions and messages written for levelhead), or the path of a UTF-8 file, whose
            first half is the validation part.

    Raises:
        TextError: the source cannot be read or reached, or the part is shorter than
            MIN_CHARACTERS.
        MissingExtraError: wikitext-2 without the `datasets` package.
    """
    if source == "wikitext-2":
        text, licence = _wikitext(split), "CC BY-SA"
    elif source == "pydoc":
        text, licence = _pydoc(split), "PSF-2.0"
    elif source in SHIPPED:
        path = resources.files("levelhead.data") / "prose" / f"{source}.{split}.txt"
        text, licence = path.read_text(encoding="utf-8").strip(), SHIPPED[source]
    else:
        text, licence = _file_half(Path(source), split), "of the user's file"
    if len(text) < MIN_CHARACTERS:
        raise TextError(
            f"the {split} part of {source} has {len(text):,} characters; perplexity needs at "
            f"least {MIN_CHARACTERS:,}: take a longer text or --text pydoc"
        )
    return PerplexityText(text=text, name=source, sha256=digest(text), licence=licence)


def _wikitext(split: Split) -> str:
    try:
        import datasets
    except ImportError:
        raise missing_extra("WikiText-2", "datasets") from None
    try:
        rows = datasets.load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split=split)
    except Exception as error:  # the hub, its cache and the network each raise their own kinds
        raise TextError(
            f"cannot load WikiText-2 from the Hugging Face hub ({type(error).__name__}: {error}); "
            "without network use --text pydoc or --text FILE"
        ) from error
    return "\n\n".join(rows["text"])


def _pydoc(split: Split) -> str:
    """Half of the Python language reference that ships inside CPython (pydoc_data.topics).

    Some topics repeat whole sections of others ("compound" holds "while", "try", ...). Topics
    that share a paragraph go to the same half, and each paragraph is kept once, so that the two
    halves have no paragraph in common. The topics differ between Python versions; the order of
    what there is follows from a hash of the topics' names.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:  # some distributions strip it
        raise TextError(
            "this Python has no pydoc_data.topics; use --text FILE or --text wikitext-2"
        ) from error
    clusters = _clusters(topics)
    halves = halve({root: sum(len(topics[t]) for t in own) for root, own in clusters.items()})
    chosen = [topic for root, own in clusters.items() if halves[root] == split for topic in own]
    seen: set[str] = set()
    kept = []
    for topic in sorted(chosen, key=digest):
        for paragraph in _paragraphs(topics[topic]):
            if (plain := _plain(paragraph)) not in seen:
                seen.add(plain)
                kept.append(paragraph)
    return "\n\n".join(kept)


def _clusters(topics: dict[str, str]) -> dict[str, list[str]]:
    """Topics grouped so that no two groups share a long paragraph; keyed by their first topic."""
    parent = {topic: topic for topic in topics}

    def root(topic: str) -> str:
        while parent[topic] != topic:
            topic = parent[topic]
        return topic

    first_with: dict[str, str] = {}
    for topic in sorted(topics):
        for paragraph in _paragraphs(topics[topic]):
            plain = _plain(paragraph)
            if len(plain) >= SHARED_PARAGRAPH_CHARACTERS:
                one, other = sorted((root(first_with.setdefault(plain, topic)), root(topic)))
                parent[other] = one
    clusters: dict[str, list[str]] = defaultdict(list)
    for topic in sorted(topics):
        clusters[root(topic)].append(topic)
    return clusters


def _paragraphs(text: str) -> list[str]:
    return [block.strip("\n") for block in re.split(r"\n[ \t]*\n", text) if block.strip()]


def _plain(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _read_file(path: Path) -> str:
    """A text file, within limits.

    Raises:
        TextError: it is missing, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise TextError(f"{path} has {size:,} bytes; {MAX_BYTES:,} are allowed")
        content = path.read_bytes()
    except FileNotFoundError:
        raise TextError(
            f"no such text: {str(path)!r}; give a file or one of {', '.join(TEXT_SOURCES)}"
        ) from None
    except (OSError, ValueError) as error:
        raise TextError(f"cannot read {path}: {error}") from error
    return read_utf8(content, str(path), TextError).replace("\r\n", "\n").strip()


def whole_file(path: str | Path) -> PerplexityText:
    """A text file of the user's as one text, however short.

    Raises:
        TextError: it cannot be read, or is empty.
    """
    text = _read_file(Path(path))
    if not text:
        raise TextError(f"{path} is empty")
    return PerplexityText(
        text=text, name=str(path), sha256=digest(text), licence="of the user's file"
    )


def _file_half(path: Path, split: Split) -> str:
    """The first (validation) or second (test) half of a file, cut at the best border near.

    A border is the end of a paragraph; where the middle half of the text has none, of a line, then
    of a word.
    """
    text = _read_file(path)
    middle = len(text) // 2
    low, high = middle - len(text) // 4, middle + len(text) // 4
    for border in (r"\n[ \t]*\n", r"\n", r"\s"):
        places = [match.end() + low for match in re.finditer(border, text[low:high])]
        if places:
            middle = min(places, key=lambda place: abs(place - middle))
            break
    return text[:middle].strip() if split == "validation" else text[middle:].strip()
