"""Everything that knows transformers models: where heads are, gating, removing, saving, loading.

Knows nothing of prompts, toxicity, scores or selection rules.
"""
