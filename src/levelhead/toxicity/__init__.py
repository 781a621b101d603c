"""Toxicity scorers: texts in, scores in [0, 1] out.

`load_scorer` turns a name into a scorer, `score_texts` calls it and checks what it returns,
`score_texts_once` asks an expensive one no question twice, `check_scorer` refuses one that tells
nothing apart. To add one, write a class with the members of `ToxicityScorer` and name it in
`registry.py`.
"""

from levelhead.toxicity.base import ToxicityScorer, score_texts
from levelhead.toxicity.composites import Masked
from levelhead.toxicity.controls import check_scorer
from levelhead.toxicity.masking import Masker, refuse_masking_most
from levelhead.toxicity.registry import load_scorer
from levelhead.toxicity.score_cache import score_texts_once

__all__ = [
    "Masked",
    "Masker",
    "ToxicityScorer",
    "check_scorer",
    "load_scorer",
    "refuse_masking_most",
    "score_texts",
    "score_texts_once",
]
