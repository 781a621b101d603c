"""From the name of a toxicity scorer to the scorer. Knows the names, not what is behind them."""

from collections.abc import Callable

from levelhead.toxicity.base import ToxicityScorer

DETOXIFY = "unitary/unbiased-toxic-roberta#toxicity"
"""The paper's classifier (arXiv 2312.15398, section 4: "unbiased-toxic-roberta" of Detoxify)."""


def _profanity_check(device: str, allow_pickle: bool) -> ToxicityScorer:
    from levelhead.toxicity.profanity import ProfanityCheck

    return ProfanityCheck()


def _detoxify(device: str, allow_pickle: bool) -> ToxicityScorer:
    return _classifier(DETOXIFY, device, allow_pickle)


def _classifier(name: str, device: str, allow_pickle: bool) -> ToxicityScorer:
    from levelhead.toxicity.classifier import load_classifier

    return load_classifier(
        name, device=device, allow_pickle=allow_pickle, other_names=tuple(SCORERS)
    )


SCORERS: dict[str, Callable[[str, bool], ToxicityScorer]] = {
    "profanity-check": _profanity_check,
    "detoxify": _detoxify,
}
"""Name to factory(device, allow_pickle). Every other name is a hub id or a folder."""


def load_scorer(name: str, device: str = "cpu", *, allow_pickle: bool = False) -> ToxicityScorer:
    """The toxicity scorer of this name.

    Args:
        name: a key of `SCORERS` or a sequence classifier `MODEL[@REVISION][#LABEL]`, where MODEL
            is a Hugging Face hub id or a local folder and LABEL the output that means "toxic".
        device: where a classifier runs ("cpu", "cuda", "mps"); `profanity-check` ignores it.
        allow_pickle: load a classifier whose weights exist only as a pickle. Unpickling can run
            code: only for files you trust.

    Raises:
        ScorerError: no scorer or model of this name, it cannot be reached, or it is not one.
        MissingExtraError: the scorer's optional dependency is not installed.
    """
    if factory := SCORERS.get(name):
        return factory(device, allow_pickle)
    return _classifier(name, device, allow_pickle)
