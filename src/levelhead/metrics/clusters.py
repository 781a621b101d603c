"""What each template contributes to an estimate: the basis of every interval here.

Estimand: this list of descriptors, templates drawn at random. All prompts and samples of one
template stand or fall together, so the template is the cluster, and the variance of an estimate
is that of a sum of independent template contributions (linearisation; for as many prompts per
template in every subgroup it is exact). Knows nothing of how intervals are made of it.
"""

import numpy as np
from jaxtyping import Float, Int

from levelhead.errors import PromptError
from levelhead.metrics.bias import gaps_of_means, subgroup_means


def gap_contributions(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    cluster: Int[np.ndarray, "n"],
    num_subgroups: int,
) -> Float[np.ndarray, "clusters subgroups"]:
    """The deviation of each gap d_s = T_S - T_s that is due to each cluster; columns sum to 0.

    The covariance of the gaps is G / (G - 1) times contributions^T @ contributions, G clusters.
    A subgroup without data contributes 0.

    Raises:
        PromptError: fewer than two clusters or subgroups have data.
    """
    counts = np.bincount(subgroup, minlength=num_subgroups)
    by_subgroup = subgroup_contributions(toxicity, subgroup, cluster, num_subgroups)
    out: Float[np.ndarray, "clusters subgroups"] = by_subgroup @ gap_weights(counts).T
    return out


def subgroup_contributions(
    toxicity: Float[np.ndarray, "n"],
    subgroup: Int[np.ndarray, "n"],
    cluster: Int[np.ndarray, "n"],
    num_subgroups: int,
) -> Float[np.ndarray, "clusters subgroups"]:
    """The deviation of each subgroup mean T_s that is due to each cluster; columns sum to 0.

    Raises:
        PromptError: fewer than two clusters.
    """
    codes = cluster_codes(cluster)
    means = subgroup_means(toxicity, subgroup, num_subgroups)
    counts = np.bincount(subgroup, minlength=num_subgroups)
    deviation = (toxicity - means[subgroup]) / counts[subgroup]
    num_clusters = int(codes.max()) + 1
    return np.bincount(
        codes * num_subgroups + subgroup, deviation, num_clusters * num_subgroups
    ).reshape(num_clusters, num_subgroups)


def gap_weights(counts: Int[np.ndarray, "subgroups"]) -> Float[np.ndarray, "gaps subgroups"]:
    """The matrix A of gaps = A @ means: the share of each subgroup in T_S, less T_s itself.

    Raises:
        PromptError: fewer than two subgroups have prompts.
    """
    known = counts > 0
    identity = np.eye(len(counts))
    columns = [np.nan_to_num(gaps_of_means(column, counts)) for column in identity * known]
    return np.stack(columns, axis=1)


def mean_contributions(
    values: Float[np.ndarray, "n"], cluster: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "clusters"]:
    """The deviation of the mean of `values` that is due to each cluster; sums to 0.

    Raises:
        PromptError: fewer than two clusters.
    """
    return np.bincount(cluster_codes(cluster), weights=(values - values.mean()) / len(values))


def cluster_codes(cluster: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Codes from 0 without holes.

    Raises:
        PromptError: fewer than two clusters: nothing shows how much they differ.
    """
    labels, codes = np.unique(cluster, return_inverse=True)
    if len(labels) < 2:
        raise PromptError(
            f"an interval needs prompts of at least 2 templates, these have {len(labels)}; use "
            "more templates or a larger --max-prompts"
        )
    return codes


def sum_variance(contributions: Float[np.ndarray, "clusters *more"]) -> Float[np.ndarray, "*more"]:
    """Variance of the sum of independent contributions, with the correction G / (G - 1)."""
    clusters = len(contributions)
    out: Float[np.ndarray, "*more"] = (contributions**2).sum(axis=0) * clusters / (clusters - 1)
    return out
