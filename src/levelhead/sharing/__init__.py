"""Sharing a pruned model: the model card written with it, and the upload to the Hugging Face hub.

Nothing is ever sent without the explicit command `levelhead push`.
"""
