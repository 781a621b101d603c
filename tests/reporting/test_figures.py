"""The figures are plain dictionaries; plotly's own schema judges them."""

import numpy as np
import plotly.graph_objects as go
import pytest
import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting import figures
from levelhead.reporting.heads import OTHER, PROTECTED, PRUNED, Effect, HeadView, head_view


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
    figure = figures.heatmap(view, view.bias["gender_and_sex"], "z_bias", figures.BIAS_SCALE)
    go.Figure(figure)
    heat, pruned, protected = figure["data"]
    assert heat["zmin"] == -heat["zmax"]
    assert heat["zmid"] == 0
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


def test_gaps_keep_values_intervals_and_escape_names() -> None:
    name = "<img src=x onerror=alert(1)> & $x$"
    base = {name: {"value": 0.01, "ci95": [-0.02, 0.03]}, "men": {"value": -0.01}}
    figure = figures.gap_plot(base, {name: {"value": 0.005, "ci95": [0.0, 0.01]}})
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
    assert figures.gap_plot({}, {"men": {"value": None}}) is None
