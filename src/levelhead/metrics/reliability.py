"""How well a measurement repeats itself, from replicates of it: Spearman and Brown's formula."""


def spearman_brown(correlation: float, times: float) -> float:
    """Reliability of the mean of `times` replicates whose pairs correlate by `correlation`.

    K r / (1 + (K - 1) r), Spearman and Brown, 1910; at least -1. Exact for linear correlation of
    replicates with independent errors; close for ranks. Two halves of a run: times 2.
    """
    below = 1 + (times - 1) * correlation
    return max(-1.0, times * correlation / below) if below > 0 else -1.0


def times_to_reach(reliability: float, target: float) -> float:
    """How many times the data would raise a reliability above 0 to a target below 1."""
    return target / (1 - target) * (1 - reliability) / reliability
