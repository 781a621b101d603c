"""Which heads to prune: pure functions of a score table."""

from levelhead.selection.rules import METHODS, select_heads

__all__ = ["METHODS", "select_heads"]
