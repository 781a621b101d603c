"""What a run found, for people: one HTML page (`render`) and a terminal table (`terminal`).

Both format the numbers of evaluation.json and scores.csv; neither estimates anything.
"""

from levelhead.reporting.escape import visible

__all__ = ["visible"]
