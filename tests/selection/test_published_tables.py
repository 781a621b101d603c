"""The published score tables and the authors' rule: same table and shares, same heads."""

from pathlib import Path

import pandas as pd
import pytest

from levelhead.scores import ScoreTable
from levelhead.selection import select_heads

TABLES = Path(__file__).parents[3] / "shared" / "data" / "published_head_scores"
MODELS = ["distilgpt2", "gpt2", "EleutherAI_gpt-neo-1.3B"]
GAMMAS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
ALPHAS = [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2]

pytestmark = pytest.mark.skipif(
    not TABLES.is_dir(), reason="the published score tables are not beside the project"
)


def authors_rule(frame: pd.DataFrame, gamma: float, alpha: float) -> list[tuple[int, int]]:
    """Written apart from the library: sort by threshold, then take the head of the list."""
    rows = frame.to_dict("records")
    total = len(rows)
    protect = (round(gamma * 100) * total) // 100
    prune = (round(alpha * 100) * total) // 100
    by_harm = sorted((row["ppl_without"] for row in rows), reverse=True)
    threshold = by_harm[protect]
    free = [row for row in rows if row["ppl_without"] <= threshold]
    free.sort(key=lambda r: (r["bias_without_gender_and_sex"], r["layer"], r["head"]))
    return sorted((int(r["layer"]), int(r["head"])) for r in free[:prune])


@pytest.mark.parametrize("model", MODELS)
def test_selects_the_heads_of_the_authors_rule(model: str) -> None:
    path = TABLES / f"{model}.csv"
    table = ScoreTable.read(path)
    frame = pd.read_csv(path)
    for gamma in GAMMAS:
        for alpha in ALPHAS:
            chosen = select_heads(table, axis="gender_and_sex", gamma=gamma, alpha=alpha)
            assert list(chosen.heads) == authors_rule(frame, gamma, alpha), (gamma, alpha)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("method", "column"),
    [
        ("bias_only", "bias_without_gender_and_sex"),
        ("ppl_only", "ppl_without"),
        ("magnitude", "magnitude_l2_structured"),
        ("mask_gradient", "mask_gradient_l2_structured"),
    ],
)
def test_baselines_prune_the_smallest_values_of_their_column(
    model: str, method: str, column: str
) -> None:
    """All four prune where the published column is smallest, in the table's own order."""
    path = TABLES / f"{model}.csv"
    table = ScoreTable.read(path)
    rows = pd.read_csv(path).to_dict("records")
    rows.sort(key=lambda row: (row[column], row["layer"], row["head"]))
    for alpha in ALPHAS:
        count = (round(alpha * 100) * len(rows)) // 100
        expected = sorted((int(row["layer"]), int(row["head"])) for row in rows[:count])
        chosen = select_heads(table, axis="gender_and_sex", method=method, alpha=alpha)
        assert list(chosen.heads) == expected, alpha


def test_the_baselines_choose_different_heads() -> None:
    """Control: no two of the methods are the same rule under two names."""
    table = ScoreTable.read(TABLES / "gpt2.csv")
    names = ("fasp", "bias_only", "ppl_only", "magnitude", "mask_gradient", "random")
    sets = {select_heads(table, axis="gender_and_sex", method=name).heads for name in names}
    assert len(sets) == len(names)


def test_ties_at_the_threshold_matter_in_a_published_table() -> None:
    """Control: protecting exactly floor(gamma N) heads would give other sets somewhere."""
    differs = False
    for model in MODELS:
        table = ScoreTable.read(TABLES / f"{model}.csv")
        ppl = table.grid("ppl_without").reshape(-1)
        for gamma in GAMMAS:
            count = int(round(gamma * 100) * ppl.size // 100)
            ordered = sorted(ppl, reverse=True)
            differs |= bool(ordered[count - 1] == ordered[count])
    assert differs


def test_by_seed_tables_are_refused_with_the_reason() -> None:
    from levelhead.errors import ScoreTableError

    with pytest.raises(ScoreTableError, match="by-seed"):
        ScoreTable.read(TABLES / "gpt2_by_seed.csv")
