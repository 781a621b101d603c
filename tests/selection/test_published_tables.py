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
