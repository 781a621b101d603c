"""Which heads to prune, from a run folder or a score table: what `levelhead select` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from levelhead import runs
from levelhead.config import AVERAGE
from levelhead.config.checks import limited
from levelhead.errors import SelectionError
from levelhead.progress import Progress, silent
from levelhead.records import HeadSelection
from levelhead.runs import RunFolder
from levelhead.scores import MIN_RELIABILITY, ScoreTable
from levelhead.stages.averaging import Averages
from levelhead.stages.joint import joint_options, judge_with
from levelhead.stages.run_session import session_of
from levelhead.stages.searching import refuse_over_limit, searched
from levelhead.stages.selecting import chosen_heads, refuse_noise, select_stage
from levelhead.stages.tables import read_table


@runs.writes("select")
def select(
    scores: str | Path | ScoreTable,
    *,
    axis: str | Sequence[str] | None = None,
    method: str = "fasp",
    gamma: float = 0.3,
    alpha: float = 0.1,
    seed: int = 0,
    per_layer_equal: bool = False,
    allow_unreliable: bool = False,
    min_reliability: float = MIN_RELIABILITY,
    weights: Sequence[float] = (),
    objective: str = "weighted",
    kl_weight: float | None = None,
    max_ppl_increase: float | None = None,
    finalists: int = 0,
    soft: bool = False,
    core: float | None = None,
    budget: float | None = None,
    average_what: str = "toxicity",
    average_keep: str | None = None,
    progress: Progress = silent,
) -> HeadSelection:
    """Choose the heads to prune.

    Args:
        scores: a run folder (selection.json is written there), a score table's CSV, or a table.
        axis: the axis whose bias is to be reduced; none: the first that the scores have. Method
            joint takes several.
        method: fasp, joint, bias_only, ppl_only, fisher_only, magnitude, mask_gradient or random;
            or average, which prunes no head and changes what heads write (run folders alone).
        gamma: share of heads protected for language modelling.
        alpha: share of heads pruned.
        seed: of method random.
        per_layer_equal: of every layer floor(alpha * heads per layer), as format uniform needs it.
        allow_unreliable: choose from a run folder whose ranking is mostly noise all the same.
        min_reliability: split-half reliability below which a ranking counts as mostly noise.
        weights: method joint: one number above 0 per axis; none: all 1.
        objective: joint with several axes: their `weighted` sum, or the `worst` of them.
        kl_weight: method joint: lambda, what a nat of KL per token is worth in bias; none: swept.
        max_ppl_increase: joint: at most `alpha` of the heads, within this share of perplexity.
        finalists: joint in a run folder: how many sets the model reads; 0: predictions decide.
        soft: scale heads by gates from 0 to 1 instead of removing them, at the same predicted KL.
        core: only heads that this share of a run folder's resamples select, 0 to 1; none: all.
        budget: share by which perplexity may rise; instead of `method`, `gamma` and `alpha`, which
            stay at their defaults: FASP's grid and method joint are searched for the set that
            reduces the gap most within it.

        average_what: method average: "toxicity", only what the scorer reads, or "all".
        average_keep: method average: a text file on which heads go on writing what they wrote.

    Raises:
        UnreliableScoresError: the ranking of a run folder is mostly noise.
        SelectionError: shares that cannot be satisfied, or an alpha that prunes nothing.
        ScoreTableError: the table lacks the axis or a column.
    """
    if method == AVERAGE:
        given = {"budget": budget, "max_ppl_increase": max_ppl_increase}
        given = {name: value for name, value in given.items() if value is not None}
        budget, max_ppl_increase = limited({"method": method} | given, True)["budget"], None
    wanted = (axis,) if isinstance(axis, str) else tuple(axis or ())
    point = ("fasp", 0.3, 0.1) if method != AVERAGE else (AVERAGE, gamma, 0.1)
    if budget is not None and (method, gamma, alpha) != point:
        raise SelectionError("budget searches for a set: leave out method, gamma and alpha")
    several = wanted if method != AVERAGE else wanted[:1]  # averaging takes several, too
    joint = joint_options(method, several, weights, objective, kl_weight, max_ppl_increase)
    if isinstance(scores, ScoreTable) or not runs.is_run(Path(scores)):
        if method == AVERAGE:
            raise SelectionError(
                f"method {AVERAGE} reads the model, its prompts and text, and a score table has "
                "none of them: give the run folder"
            )
        table = scores if isinstance(scores, ScoreTable) else read_table(Path(scores))
        if budget is not None:
            axis = wanted[0] if wanted else table.axes[0]
            return searched(table, axis, budget, joint, soft=soft)
        shares = (method, gamma, alpha, seed, per_layer_equal, 1, joint, soft, core)
        return chosen_heads(table, wanted[0] if wanted else None, *shares)
    folder = RunFolder.open(scores, old=not finalists and method != AVERAGE)
    config = replace(
        folder.config,
        axis=wanted or folder.config.axis,
        method=method,
        gamma=gamma,
        alpha=alpha,
        seed=seed,
        finalists=finalists,
        soft=soft,
        core=core,
        budget=budget,
        average_what=average_what,
        average_keep=average_keep,
    )
    if not allow_unreliable:
        refuse_noise(folder, config, min_reliability)
    session = session_of(folder, config)
    judge = judge_with(session, progress)
    averages = Averages(session, progress, judge)
    reads = judge if finalists else None
    return select_stage(
        folder, config, min_reliability, per_layer_equal, joint, reads, refuse_over_limit, averages
    )
