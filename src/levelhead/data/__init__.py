"""Prompts, perplexity text and the embedded model. Knows nothing of models, scores or runs."""
