"""Toxicity scorers: texts in, scores in [0, 1] out.

`load_scorer` turns a name into a scorer, `score_texts` calls it and checks what it returns. To
add one, write a class with the members of `ToxicityScorer` and name it in `registry.py`.
"""

from levelhead.toxicity.base import ToxicityScorer, score_texts
from levelhead.toxicity.registry import load_scorer

__all__ = ["ToxicityScorer", "load_scorer", "score_texts"]
