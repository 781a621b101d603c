"""The table of head scores (`scores.csv`): a row per head, read and written in one place.

Columns: `layer, head`, then for a metric M (`ppl`, `bias` of an axis) its value with the head
removed (`ppl_without`, `bias_without_AXIS`) and where known `M_base`, `M_se` (standard error of
the effect), `M_low` and `M_high` (its 95% interval); the effect on each signed gap
(`gap_effect_AXIS_SUBGROUP`: with head minus without; `gap_effect::AXIS::SUBGROUP` where that name
would also be another subgroup's), `fisher`, and method scores. The effect z = base - without
(arXiv 2312.15398, eq. 3 and 4), so an unknown base changes no ranking. The table knows nothing of
how its numbers were estimated.

Of MLP neurons the second column is `neuron`; a table of whole attention layers has none, and a
column `heads`: how many heads each layer has.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from levelhead.errors import ScoreTableError
from levelhead.plain_text import read_utf8
from levelhead.set_cost import SetCost

MAX_BYTES = 200_000_000
ALIASES = {
    "magnitude_l2_structured": "magnitude",
    "mask_gradient_l2_structured": "mask_gradient",
}
PPL = "ppl"
SEPARATOR = "::"
"""Of axis and subgroup in a column's name, where "_" leaves open where one ends."""
MIN_RELIABILITY = 0.5
"""Below it two reruns share less than a quarter of their rankings' variance: mostly noise."""


def bias_metric(axis: str) -> str:
    """The metric name of an axis' bias, as used by `ScoreTable.effect`."""
    return f"bias:{axis}"


def column(metric: str, part: str) -> str:
    """Column name of a metric's part: ("ppl", "base") -> ppl_base; bias -> bias_base_AXIS."""
    name, _, axis = metric.partition(":")
    return f"{name}_{part}_{axis}" if axis else f"{name}_{part}"


def gap_column(part: str, axis: str, subgroup: str, axes: Iterable[str]) -> str:
    """Column name of a subgroup's gap: gap_base_AXIS_SUBGROUP, or gap_base::AXIS::SUBGROUP.

    The second where the first could be read as another axis and subgroup: "gender" and
    "identity_trans" beside an axis "gender_identity". No two have one name.

    Args:
        part: "base", "effect", or one of them with "_se".
        axes: all axes of the table.
    """
    joined = f"{axis}_{subgroup}"
    mistaken = any(joined.startswith(f"{a}_") and len(a) > len(axis) for a in axes)
    if mistaken or SEPARATOR in joined or f"{axis}_".startswith("se_"):
        return SEPARATOR.join((f"gap_{part}", _quoted(axis), _quoted(subgroup)))
    return f"gap_{part}_{joined}"


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace(":", "%3A")


def _unquoted(name: str) -> str:
    return name.replace("%3A", ":").replace("%25", "%")


def head_count(share: float, num_heads: int) -> int:
    """floor(share * num_heads) without losing one to floating point (0.29 of 100 is 29)."""
    return math.floor(Decimal(str(share)) * num_heads)


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of every head of one model; rows sorted by (layer, head), every head present."""

    frame: pd.DataFrame
    num_layers: int
    num_heads: int
    cost: SetCost | None = None
    """What sets of heads cost; None: unknown (a bare CSV, or a run of an older levelhead)."""
    unit: str = "head"
    """What a row is of: "head", "neuron" or "layer" (`records.Unit`). In `frame` neurons stand in
    the column `head`, and layers have a single head; the CSV has `neuron`, or `layer` alone."""

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, source: str = "score table") -> ScoreTable:
        """Check and sort a frame.

        Raises:
            ScoreTableError: columns missing, heads missing or twice, values that are not finite.
        """
        frame = frame.rename(columns=ALIASES)
        frame, unit = _by_unit(frame)
        missing = [c for c in ("layer", "head") if c not in frame.columns]
        if missing:
            raise ScoreTableError(
                f"{source}: no column {missing[0]!r}; its columns are "
                f"{', '.join(map(str, frame.columns[:12]))}"
            )
        if "axis" in frame.columns and "seed" in frame.columns:
            raise ScoreTableError(
                f"{source} is a by-seed table (a row per axis, seed and head); "
                "selection needs a table with one row per head; whether its seeds agree: "
                f"levelhead diagnose {source}"
            )
        frame = pd.DataFrame({n: finite_numbers(frame[n], str(n), source) for n in frame.columns})
        frame = frame.astype({"layer": int, "head": int})
        frame = frame.sort_values(["layer", "head"], ignore_index=True)
        num_layers, num_heads = int(frame["layer"].max()) + 1, int(frame["head"].max()) + 1
        if num_layers * num_heads > 4 * len(frame) + 1000:  # before a list of all of them is made
            raise ScoreTableError(
                f"{source} has {len(frame):,} rows, and its largest layer and head make "
                f"{num_layers:,} layers x {num_heads:,} heads; a table needs every head"
            )
        grid = [(layer, head) for layer in range(num_layers) for head in range(num_heads)]
        rows = list(zip(frame["layer"], frame["head"], strict=True))
        if len(rows) != len(set(rows)):
            twice = next(r for i, r in enumerate(rows[1:], 1) if r == rows[i - 1])
            raise ScoreTableError(f"{source}: layer {twice[0]}, head {twice[1]} has two rows")
        if rows != grid:
            absent = sorted(set(grid) - set(rows))[0]
            raise ScoreTableError(
                f"{source}: no row for layer {absent[0]}, head {absent[1]}; a table needs every "
                f"head of {num_layers} layers x {num_heads} heads"
            )
        return cls(frame, num_layers, num_heads, unit=unit)

    @classmethod
    def build(
        cls,
        columns: Mapping[str, Float[np.ndarray, "layers heads"] | float],
        num_layers: int,
        num_heads: int,
    ) -> ScoreTable:
        """A table from arrays of shape [layers, heads] (or one number for all heads)."""
        layer, head = np.divmod(np.arange(num_layers * num_heads), num_heads)
        data: dict[str, np.ndarray] = {"layer": layer, "head": head}
        for name, values in columns.items():
            grid = np.broadcast_to(np.asarray(values, dtype=float), (num_layers, num_heads))
            data[ALIASES.get(name, name)] = grid.reshape(-1)
        frame = pd.DataFrame(data)
        if len(frame) and all(np.isfinite(values).all() for values in data.values()):
            return cls(frame, num_layers, num_heads)  # every head is there, once and in order
        return cls.from_frame(frame)

    @classmethod
    def of_effects(cls, effects: Mapping[str, Float[np.ndarray, "layers heads"]]) -> ScoreTable:
        """A table that ranks as these effects z do, by metric; its bases are unknown."""
        shape = next(iter(effects.values())).shape
        columns = {column(metric, "without"): -z for metric, z in effects.items()}
        return cls.build(columns, *shape)

    @classmethod
    def read(cls, path: str | Path) -> ScoreTable:
        """Read a CSV in this module's form, such as the tables published with the paper."""
        return cls.from_frame(read_frame(path), str(path))

    def with_cost(self, cost: SetCost | None) -> ScoreTable:
        """The same table, with what sets of heads cost.

        Raises:
            ScoreTableError: the cost is of another number of heads.
        """
        heads = self.num_layers * self.num_heads
        if cost is not None and len(cost.slope) != heads:
            raise ScoreTableError(
                f"the Fisher matrix is of {len(cost.slope)} heads, the score table of {heads}; "
                "score the model again"
            )
        return replace(self, cost=cost)

    def to_csv(self) -> str:
        """The table as CSV text, every float with the digits that read back to the same bits."""
        frame = self.frame
        if self.unit == "neuron":
            frame = frame.rename(columns={"head": "neuron"})
        elif self.unit == "layer":
            frame = frame.drop(columns="head")
        return frame.to_csv(index=False, lineterminator="\n")

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes that the table has a bias for."""
        prefix = "bias_without_"
        return tuple(str(c)[len(prefix) :] for c in self.frame.columns if c.startswith(prefix))

    def subgroups(self, axis: str) -> tuple[str, ...]:
        """Subgroups of an axis that the table has a base gap and signed effects for."""
        prefix = f"gap_base_{axis}_"
        marked = SEPARATOR.join(("gap_base", _quoted(axis), ""))
        known = set(map(str, self.frame.columns))
        found = []
        for name in map(str, self.frame.columns):
            if name.startswith("gap_base_se_") and name.replace("_se_", "_", 1) in known:
                continue  # a standard error, not a gap of an axis "se"
            if name.startswith(marked):
                found.append(_unquoted(name[len(marked) :]))
            # Another axis may have a name that goes on where this one ends.
            elif name.startswith(prefix) and not any(
                name.startswith(f"gap_base_{a}_") for a in self.axes if len(a) > len(axis)
            ):
                found.append(name[len(prefix) :])
        return tuple(found)

    def gap(self, part: str, axis: str, subgroup: str) -> Float[np.ndarray, "layers heads"]:
        """A part of a subgroup's gap (as `gap_column`), also of a table of an older levelhead.

        Raises:
            ScoreTableError: the table lacks it.
        """
        name = gap_column(part, axis, subgroup, self.axes)
        plain = f"gap_{part}_{axis}_{subgroup}"
        return self.grid(plain if name not in self.frame.columns else name)

    def grid(self, name: str) -> Float[np.ndarray, "layers heads"]:
        """One column as [layers, heads].

        Raises:
            ScoreTableError: no such column.
        """
        if name not in self.frame.columns:
            raise ScoreTableError(f"the score table has no column {name!r}{self._hint(name)}")
        values: list[float] = self.frame[name].tolist()
        table: Float[np.ndarray, "layers heads"] = np.array(values).reshape(
            self.num_layers, self.num_heads
        )
        return table

    def ranking(self, metric: str) -> Float[np.ndarray, "layers heads"]:
        """A number that orders heads as the metric's effect does (larger: larger effect).

        It is -without: exact, where base - without would round ties into the order.
        """
        return -self.grid(column(metric, "without"))

    def effect(self, metric: str) -> Float[np.ndarray, "layers heads"]:
        """z(h) = metric(with head) - metric(without head); needs the metric's base column."""
        base, without = self.grid(column(metric, "base")), self.grid(column(metric, "without"))
        effect: Float[np.ndarray, "layers heads"] = base - without
        return effect

    def stderr(self, metric: str) -> Float[np.ndarray, "layers heads"]:
        """Standard error of the metric's effect."""
        return self.grid(column(metric, "se"))

    def interval(
        self, metric: str
    ) -> tuple[Float[np.ndarray, "layers heads"], Float[np.ndarray, "layers heads"]]:
        """Ends of the 95% interval of the metric's effect."""
        return self.grid(column(metric, "low")), self.grid(column(metric, "high"))

    def _hint(self, name: str) -> str:
        if name.startswith("bias_without_"):
            return f"; its axes are: {', '.join(self.axes) or 'none'}"
        if name in ALIASES.values():
            return "; score the model again, or leave that method out"
        return ""


def _by_unit(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A frame as one of heads, and what its rows are of: neurons, layers, or heads."""
    if "head" in frame.columns or "layer" not in frame.columns:
        return frame, "head"
    if "neuron" in frame.columns:
        return frame.rename(columns={"neuron": "head"}), "neuron"
    if "heads" in frame.columns:
        return frame.assign(head=0), "layer"
    return frame, "head"


def read_frame(path: str | Path) -> pd.DataFrame:
    """A CSV file as a frame of text, for `finite_numbers` to read: Python's float() then gives
    back the very bits that to_csv wrote.

    Raises:
        ScoreTableError: a file that cannot be read, is no CSV, or is larger than `MAX_BYTES`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # a pipe does not tell its size
        if len(content) > MAX_BYTES:
            raise ScoreTableError(f"{path}: larger than {MAX_BYTES:,} bytes")
        text = read_utf8(content, str(path), ScoreTableError)
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except OSError as error:
        raise ScoreTableError(f"cannot read the score table {path}: {error}") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise ScoreTableError(f"{path} is not a CSV score table: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas made an index of the first columns
        raise ScoreTableError(f"{path}: its rows have more values than its header has names")
    return frame


def finite_numbers(values: pd.Series, name: str, source: str) -> Float[np.ndarray, " rows"]:
    """A column as finite numbers; layer and head as whole numbers from 0.

    Raises:
        ScoreTableError: the first row that is none, counted from 1 below the header.
    """
    if len(values) == 0:
        raise ScoreTableError(f"{source} has no rows")
    whole = name in ("layer", "head")
    if values.dtype.kind in "iuf" and np.isfinite(values).all():  # tables of many neurons
        plain: Float[np.ndarray, " rows"] = values.to_numpy(dtype=float)
        if not whole or all(map(_index, plain)):
            return plain
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or (whole and not _index(number)):
            kind = "a whole number from 0" if whole else "a finite number"
            raise ScoreTableError(
                f"{source}: column {name!r}, row {row + 1} is {value!r}, not {kind}"
            )
        numbers[row] = number
    return numbers


def _index(number: float) -> bool:
    return 0 <= number <= 100_000 and number == int(number)
