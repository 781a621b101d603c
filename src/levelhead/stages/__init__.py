"""What each stage of a run does in a run folder; `pipeline` is their public face.

A stage whose output is there, from the same options, model and heads, is not repeated.
"""
