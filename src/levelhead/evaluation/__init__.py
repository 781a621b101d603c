"""What pruning did, on held-out prompts and text: bias, perplexity, size, failure signatures."""

from levelhead.evaluation.models import evaluate_run

__all__ = ["evaluate_run"]
