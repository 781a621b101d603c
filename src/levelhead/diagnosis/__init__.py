"""Is a published head ranking more than noise? Replicates of one procedure, compared."""

from levelhead.diagnosis.by_seed import SeedScores, read_by_seed
from levelhead.diagnosis.table import diagnose
from levelhead.diagnosis.verdict import diagnose_axes

__all__ = ["SeedScores", "diagnose", "diagnose_axes", "read_by_seed"]
