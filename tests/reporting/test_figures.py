"""The figures are plain dictionaries; plotly's own schema judges them."""

import numpy as np
import plotly.graph_objects as go
import pytest
import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting.estimates import Estimate
from levelhead.reporting.figures import curves, intervals, matrices
from levelhead.reporting.figures import heads as figures
from levelhead.reporting.figures.curves import Mark, Series
from levelhead.reporting.figures.intervals import FIRST, SECOND, Side
from levelhead.reporting.figures.style import BIAS_SCALE
from levelhead.reporting.head_view import OTHER, PROTECTED, PRUNED, Effect, HeadView, head_view

EVIL = "<img src=x onerror=alert(1)> & $x$"


@pytest.fixture
def view() -> HeadView:
    return head_view(synthetic.table(("religion", "gender_and_sex")), synthetic.selection())


def test_statuses(view: HeadView) -> None:
    assert view.with_status(PRUNED) == synthetic.PRUNED
    assert view.with_status(PROTECTED) == [tuple(head) for head in synthetic.PROTECTED]
    assert view.count(OTHER) == 12 * 9 - 8
    assert list(view.bias) == ["gender_and_sex", "religion"]


def test_heads_outside_the_grid_or_malformed_are_left_out() -> None:
    selection = HeadSelection.of([(0, 0), (99, 0)], details={"protected": [[1], "x", [0, 99], 3]})
    view = head_view(synthetic.table(), selection)
    assert (view.pruned, view.protected) == ({(0, 0)}, set())


def test_heatmap_is_centred_and_marks_heads(view: HeadView) -> None:
    figure = figures.heatmap(view, view.bias["gender_and_sex"], "z_bias", BIAS_SCALE)
    go.Figure(figure)
    heat, pruned, protected = figure["data"]
    assert heat["zmin"] == -heat["zmax"]
    assert np.array(heat["z"]).shape == (12, 9)
    assert list(zip(pruned["y"], pruned["x"], strict=True)) == synthetic.PRUNED
    assert len(protected["x"]) == len(synthetic.PROTECTED)
    assert "pruned" in heat["text"][2][3]
    assert "pruned" not in heat["text"][2][2]


def test_schema_is_a_judge() -> None:
    with pytest.raises(ValueError, match="zmiddle"):
        go.Figure({"data": [{"type": "heatmap", "zmiddle": 0}]})


def test_scatter_holds_every_head_once_with_errors(view: HeadView) -> None:
    assert view.ppl is not None
    bias = view.bias["gender_and_sex"]
    figure = figures.scatter(view, view.ppl, bias)
    go.Figure(figure)
    y = [value for trace in figure["data"] for value in trace["y"]]
    errors = [value for trace in figure["data"] for value in trace["error_y"]["array"]]
    assert bias.stderr is not None
    assert sorted(y) == sorted(bias.values.ravel())
    assert sorted(errors) == sorted(bias.stderr.ravel())


def test_one_far_head_does_not_flatten_the_rest_and_pruned_heads_stay_inside(
    view: HeadView,
) -> None:
    assert view.ppl is not None
    low, high = figures.scatter_window(view, view.ppl) or (0, 0)
    assert view.ppl.values.min() < low
    assert all(low < view.ppl.of(head)[0] < high for head in view.pruned)
    plain = Effect(np.linspace(-1, 1, 108).reshape(12, 9), None)
    assert figures.scatter_window(view, plain) is None


def test_colours_of_a_table_of_zeros_have_a_range(view: HeadView) -> None:
    assert figures.colour_limit(Effect(np.zeros((3, 3)), None)) > 0


def test_a_map_has_both_marks_for_the_script_even_where_nothing_is_marked() -> None:
    view = head_view(synthetic.table(), HeadSelection.of([]))
    data = figures.heatmap(view, view.bias["gender_and_sex"], "z_bias", BIAS_SCALE)["data"]
    assert [trace["name"] for trace in data[1:]] == [PRUNED, PROTECTED]
    assert [trace["x"] for trace in data[1:]] == [[], []]


def test_gaps_keep_values_intervals_and_escape_names() -> None:
    base = {EVIL: Estimate(0.01, (-0.02, 0.03)), "men": Estimate(-0.01)}
    pruned = {EVIL: Estimate(0.005, (0.0, 0.01))}
    sides = (Side("base", base, FIRST), Side("pruned", pruned, SECOND))
    figure = intervals.side_by_side(sides, "gap")
    assert figure is not None
    go.Figure(figure)
    first, second = figure["data"]
    assert (first["x"], second["x"]) == ([0.01, -0.01], [0.005])
    assert first["error_x"]["array"] == pytest.approx([0.02, 0])
    assert first["error_x"]["arrayminus"] == pytest.approx([0.03, 0])
    labels = figure["layout"]["yaxis"]["ticktext"]
    assert not any("<" in text or "$" in text for text in labels)
    assert first["text"][0].startswith("&lt;img src=x onerror=alert(1)&gt; &amp; &#36;x&#36;<br>")


def test_no_gaps_no_figure() -> None:
    assert intervals.side_by_side((Side("base", {}, FIRST),), "gap") is None


def series() -> list[Series]:
    marks = tuple(Mark(a, Estimate(-a, (-2 * a, 0)), EVIL, Estimate(3 * a)) for a in (0.0, 0.1))
    return [Series(EVIL, 0, marks), Series("random", 1, marks), Series("random", 1, marks)]


def test_curves_show_intervals_and_name_draws_of_one_method_once() -> None:
    figure = curves.over_share(series(), "alpha", "change of bias")
    go.Figure(figure)
    assert [trace["showlegend"] for trace in figure["data"]] == [True, True, False]
    assert figure["data"][0]["error_y"]["arrayminus"] == pytest.approx([0, 0.1])
    assert figure["data"][0]["y"] == [0, -0.1]
    assert not any("<" in t.replace("<br>", "") for d in figure["data"] for t in d["text"])


def test_the_front_holds_what_nothing_beats_on_both() -> None:
    points = [(0.0, 0.0), (1.0, -1.0), (1.0, -2.0), (2.0, -1.5), (3.0, -3.0), (0.0, 0.0)]
    assert curves.front(points) == [(0.0, 0.0), (1.0, -2.0), (3.0, -3.0)]
    figure = curves.against(series())
    go.Figure(figure)
    assert figure["data"][0]["x"] == pytest.approx([0, 0.3])


def test_a_matrix_leaves_unknown_cells_empty_and_marks_others() -> None:
    names = [EVIL, "men"]
    values = [[None, 0.5], [-0.5, None]]
    texts = [["", "0.50"], ["-0.50", ""]]
    figure = matrices.matrix(names, names, values, texts, [[EVIL] * 2] * 2, limit=1.0)
    figure = matrices.marked(figure, [(1, 0)], "x", "over budget")
    go.Figure(figure)
    heat, mark = figure["data"]
    assert heat["z"] == values
    assert (round(mark["x"][0]), round(mark["y"][0])) == (0, 1)
    assert not any("<" in t.replace("<br>", "") for line in heat["customdata"] for t in line)
    assert not any("<" in t for t in figure["layout"]["xaxis"]["ticktext"])


def test_a_histogram_has_a_bar_per_count() -> None:
    figure = figures.histogram([-1, 0, 1], [60, 40], "z_bias", "#000000")
    go.Figure(figure)
    assert (figure["data"][0]["x"], figure["data"][0]["y"]) == ([-0.5, 0.5], [60, 40])
