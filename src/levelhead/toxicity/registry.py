"""From the name of a toxicity scorer to the scorer. Knows the names, not what is behind them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from levelhead.errors import ScorerError
from levelhead.toxicity.base import ToxicityScorer
from levelhead.toxicity.composites import COMPOSITES, Terms

DETOXIFY = "unitary/unbiased-toxic-roberta#toxicity"
"""The paper's classifier (arXiv 2312.15398, section 4: "unbiased-toxic-roberta" of Detoxify)."""


def _profanity_check(device: str) -> ToxicityScorer:
    from levelhead.toxicity.profanity import ProfanityCheck

    return ProfanityCheck()


def _toxicityclassifier(device: str) -> ToxicityScorer:
    from levelhead.toxicity.char_ngrams import CharNgrams

    return CharNgrams()


def _sentiment(device: str) -> ToxicityScorer:
    from levelhead.toxicity.sentiment import Sentiment

    return Sentiment()


def _detoxify(device: str) -> ToxicityScorer:
    return _classifier(DETOXIFY, device)


def _classifier(name: str, device: str) -> ToxicityScorer:
    from levelhead.toxicity.classifier import load_classifier

    return load_classifier(name, device=device, other_names=scorer_names())


SCORERS: dict[str, Callable[[str], ToxicityScorer]] = {
    "profanity-check": _profanity_check,
    "toxicityclassifier": _toxicityclassifier,
    "sentiment": _sentiment,
    "detoxify": _detoxify,
}
"""Name to factory(device). Every other name is a hub id or a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerFacts:
    """What is known of a scorer without asking it."""

    measures: Literal["toxicity", "sentiment"] = "toxicity"
    language: str = "unknown"
    licence: str = "unknown"
    extra: str | None = None
    """What has to be installed (`levelhead[EXTRA]`); None: nothing besides levelhead."""
    offline: bool = False
    """Whether it is part of an installed package, so that it never needs a network."""
    composite: bool = False
    """Whether it is a form of another scorer (`masked:`, `over-0.5:`)."""


FACTS: dict[str, ScorerFacts] = {
    "profanity-check": ScorerFacts(
        language="English", licence="MIT", extra="profanity-check", offline=True
    ),
    "toxicityclassifier": ScorerFacts(
        language="English", licence="MIT", extra="toxicityclassifier", offline=True
    ),
    "sentiment": ScorerFacts(
        measures="sentiment", language="English", licence="MIT", extra="sentiment", offline=True
    ),
    "detoxify": ScorerFacts(language="English", licence="Apache-2.0"),
}
"""Of the built-in names. Licences: docs/licences.md."""


def scorer_facts(name: str) -> ScorerFacts:
    """The facts of a scorer by name; those of a composite are its inner scorer's."""
    prefix, _, rest = name.partition(":")
    if prefix in COMPOSITES:
        return replace(scorer_facts(rest), composite=True)
    return FACTS.get(name, ScorerFacts())


def scorer_names() -> tuple[str, ...]:
    """The built-in names and the prefixes they may have, for messages."""
    return (*SCORERS, *(f"{prefix}:NAME" for prefix in COMPOSITES))


def load_scorer(name: str, device: str = "cpu", *, terms: Terms = ()) -> ToxicityScorer:
    """The toxicity scorer of this name.

    Args:
        name: a key of `SCORERS` or a sequence classifier `MODEL[@REVISION][#LABEL]`, where MODEL
            is a Hugging Face hub id or a local folder and LABEL the output that means "toxic".
            In front of it may stand `over-0.5:` and `masked:` (`levelhead.toxicity.composites`).
        device: where a classifier runs ("cpu", "cuda", "mps"); the others ignore it.
        terms: identity words, for `masked:`.

    Raises:
        ScorerError: no scorer or model of this name, it cannot be reached, or it is not one.
        MissingExtraError: the scorer's optional dependency is not installed.
    """
    prefix, _, rest = name.partition(":")
    if prefix in COMPOSITES:
        if not rest:
            raise ScorerError(f"no toxicity scorer {name!r}: name one after {prefix}:")
        inner = load_scorer(rest, device, terms=terms)
        return COMPOSITES[prefix](inner, terms)
    if factory := SCORERS.get(name):
        return factory(device)
    return _classifier(name, device)
