"""Reading by-seed tables: what is refused, with the row and the column; what is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from by_seed_tables import by_seed_table, write

from levelhead import scores as scores_module
from levelhead.diagnosis.by_seed import COLUMNS, read_by_seed
from levelhead.errors import ScoreTableError
from levelhead.scores import ScoreTable


@pytest.fixture
def table() -> pd.DataFrame:
    return by_seed_table(np.random.default_rng(1), heads=24, seeds=2)


def test_values_come_back_whatever_the_order_of_rows(table: pd.DataFrame, tmp_path: Path) -> None:
    other = table.assign(axis="race", bias_without=table["bias_without"] + 1)
    shuffled = pd.concat([table, other]).sample(frac=1, random_state=3)
    read = {scores.axis: scores for scores in read_by_seed(write(shuffled, tmp_path))}
    assert set(read) == {"gender", "race"}
    gender = read["gender"]
    assert gender.seeds == (1, 2)
    assert gender.heads == tuple((layer, head) for layer in range(2) for head in range(12))
    expected = table["bias_without"].to_numpy().reshape(2, 24)
    np.testing.assert_array_equal(gender.bias, expected)
    np.testing.assert_allclose(read["race"].bias, expected + 1, rtol=1e-15)
    np.testing.assert_array_equal(
        gender.ppl, table["ppl_without"].to_numpy().reshape(2, 24), strict=True
    )


def test_a_head_may_lack_a_seed(table: pd.DataFrame, tmp_path: Path) -> None:
    (scores,) = read_by_seed(write(table.drop(index=[5, 30]), tmp_path))
    assert np.argwhere(np.isnan(scores.bias)).tolist() == [[0, 5], [1, 6]]
    assert len(scores.heads) == 24


@pytest.mark.parametrize("bad", ["nan", "", "inf", "-inf", "high"])
@pytest.mark.parametrize("column", COLUMNS[1:])
def test_a_value_that_is_no_finite_number(
    table: pd.DataFrame, tmp_path: Path, column: str, bad: str
) -> None:
    text = table.astype(object)
    text.loc[6, column] = bad
    with pytest.raises(ScoreTableError, match=rf"'{column}', row 7 is") as error:
        read_by_seed(write(text, tmp_path))
    assert repr(bad) in str(error.value)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(table: pd.DataFrame, tmp_path: Path, column: str) -> None:
    with pytest.raises(ScoreTableError, match=f"no column '{column}'"):
        read_by_seed(write(table.drop(columns=column), tmp_path))


@pytest.mark.parametrize(
    ("column", "bad", "message"),
    [
        ("axis", "", "column 'axis', row 3 is empty"),
        ("seed", "1.5", "column 'seed', row 3 is 1.5, not a whole number"),
        ("seed", "1e300", "row 3"),
        ("layer", "-1", "column 'layer', row 3 is '-1'"),
        ("head", "0.5", "column 'head', row 3 is '0.5'"),
        ("head", "1", "row 3 is the second one for axis 'gender', seed 1, layer 0, head 1"),
    ],
)
def test_other_bad_values(
    table: pd.DataFrame, tmp_path: Path, column: str, bad: str, message: str
) -> None:
    text = table.astype(object)
    text.loc[2, column] = bad
    with pytest.raises(ScoreTableError, match=message):
        read_by_seed(write(text, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CSV score table"),
        (",".join(COLUMNS).encode() + b"\n", "no rows"),
        (b"\xff\xfe\x00", "it looks like UTF-16"),
        (b"a,b\n1,2,3\n4,5,6\n", "more values than its header"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ScoreTableError, match=message):
        read_by_seed(path)
    with pytest.raises(ScoreTableError, match=message if b"axis" not in content else "by-seed"):
        ScoreTable.read(path)


def test_places_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ScoreTableError, match=r"details\.json"):
        read_by_seed(tmp_path)
    with pytest.raises(ScoreTableError, match="cannot read"):
        read_by_seed(tmp_path / "nowhere.csv")


def test_a_file_that_is_too_large(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(table, tmp_path)
    size = path.stat().st_size
    monkeypatch.setattr(scores_module, "MAX_BYTES", size)
    read_by_seed(path)
    monkeypatch.setattr(scores_module, "MAX_BYTES", size - 1)
    with pytest.raises(ScoreTableError, match="larger than"):
        read_by_seed(path)


def test_a_byte_order_mark_is_no_part_of_the_first_column(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    path = write(table, tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_by_seed(path)[0].axis == "gender"


def test_a_table_without_replicates_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(ScoreTable.build({"bias_without_gender": 0.1}, 2, 4).to_csv())
    with pytest.raises(ScoreTableError, match="no replicates"):
        read_by_seed(path)
