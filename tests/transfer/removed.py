"""Heads to remove from tiny models of 3 layers of 6 heads (grouped: 2 key/value heads)."""

HEADS = {0: range(6), 1: [5], 2: [1, 2, 3, 5]}
"""A whole layer (the one whose cache masks are built from), and groups of unequal size."""
OTHER = {0: [1], 1: [0, 3], 2: range(6)}
