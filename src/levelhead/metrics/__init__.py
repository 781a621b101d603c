"""Measures of a model: bias and its intervals, perplexity, degenerate text. They load nothing."""
