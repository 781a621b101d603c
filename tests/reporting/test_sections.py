"""What each section says, and that any key of any file may be missing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
import synthetic

from levelhead.records import HeadSelection
from levelhead.reporting import sections
from levelhead.reporting.build import build
from levelhead.reporting.content import Section, Value
from levelhead.reporting.findings import EXPERIMENTS, Findings


def said(value: Value) -> str:
    return value if isinstance(value, str) else f"{value.text} {value.interval}".strip()


def rows(section: Section | None) -> list[str]:
    assert section is not None
    return [
        " | ".join(map(said, row.cells))
        for table in section.tables
        for group in table.groups
        for row in group.rows
    ]


def keys(section: Section | None) -> list[str]:
    assert section is not None
    return [plot.key for plot in (*section.plots, *section.more_plots)]


def test_compare_has_the_curves_the_front_the_search_and_the_numbers() -> None:
    section = sections.compare(synthetic.compare())
    assert keys(section) == [
        "compare-bias-0", "compare-ppl", "compare-front-0", "compare-search-0",
    ]  # fmt: skip
    assert rows(section)[0] == (
        "fasp | 0.3 | 0.1 | 10 | -0.0333 [-0.0533, -0.0133] | lower | -0.0222 [-0.0232, -0.0212] | "
        " | +30.0% [+28.0%, +32.0%] | no"
    )
    assert len(rows(section)) == 1 + 4 * 3
    assert section is not None
    assert "200 test prompts, 3 seeds" in section.intro[0]
    assert "at most 10%" in section.intro[1]


def test_compare_has_a_line_per_draw_and_the_other_axes_after_the_first() -> None:
    data = synthetic.compare() | {"more": [synthetic.compare("religion")]}
    section = sections.compare(data)
    assert section is not None
    lines = section.plots[0].figure["data"]
    assert [line["name"] for line in lines] == ["fasp", "bias_only", "random", "random"]
    assert [plot.key for plot in section.more_plots] == [
        "compare-bias-1", "compare-front-1", "compare-search-1",
    ]  # fmt: skip
    assert "religion" in section.more_plots[0].title


def test_compare_tells_gammas_apart_where_a_method_has_several() -> None:
    data = synthetic.compare()
    data["points"] += [
        one | {"gamma": 0.5} for one in data["points"] if one["method"] == "fasp" and one["gamma"]
    ]
    section = sections.compare(data)
    assert section is not None
    names = [line["name"] for line in section.plots[0].figure["data"]]
    assert "fasp, gamma 0.3" in names
    assert "fasp, gamma 0.5" in names


def test_axes_has_both_correlations_and_the_cross_effects_with_their_control() -> None:
    section = sections.axes(synthetic.axes())
    found = rows(section)
    assert keys(section) == ["axes-0", "axes-1", "axes-cross"]
    assert found[0] == "one | gender_and_sex | religion | 0.41 [0.31, 0.51] | 0.55 [0.35, 0.75]"
    assert "one minus two | gender_and_sex | religion" in found[2]
    assert found[3].startswith("gender_and_sex | one and two | 0.70")
    assert sum("-0.0111 [-0.0211, -0.0011] | 0.0654 | 10" in row for row in found) == 8
    assert section is not None
    assert "a note on axes" in section.intro


def test_agree_has_the_measures_and_their_pairs() -> None:
    section = sections.agree(synthetic.agree())
    assert rows(section) == [
        "toxicity | toxicity:1 | 0.1000 [0.0800, 0.1200] | 0.70",
        "sentiment | sentiment:1 | 0.1000 [0.0800, 0.1200] | 0.70",
        "toxicity | sentiment | 0.37 [0.27, 0.47] |  | 42% [32%, 52%] | 10%",
        "toxicity | sentiment | 0.20 [0.10, 0.30] | 0.15",
    ]
    assert keys(section) == ["agree"]
    assert section is not None
    assert section.points == (("", "not the same"),)
    assert "a warning on measures" in section.intro


def test_interactions_has_the_sum_the_joint_effect_and_the_pairs() -> None:
    section = sections.interactions(synthetic.interactions())
    found = "-0.0800 [-0.1000, -0.0600] | -0.0500 [-0.0700, -0.0300] | 0.0300 [0.0150, 0.0450]"
    assert rows(section)[0] == f"bias | {found}"
    assert rows(section)[3] == f"2.3 and 7.8 | {found} | 0.0300 [0.0150, 0.0450]"
    assert keys(section) == ["interactions-bias", "interactions-nll"]


def test_glance_says_the_critical_share_and_what_gamma_does() -> None:
    section = sections.glance(synthetic.glance())
    assert section is not None
    assert "more than 1%: 33% [23%, 43%] of all; the paper says about 30%" in section.intro[0]
    assert keys(section) == ["spread-bias-0", "spread-ppl", "gamma-bias", "gamma-ppl"]
    assert rows(section)[0] == "1% | 33% [23%, 43%]"
    assert "0.2 | 32 | 10 | -0.0123 | -0.0200 | – | +8.7% | 70%" in rows(section)
    assert "5 heads to the left, 3 to the right" in section.plots[0].caption


def test_reproduce_has_both_figures() -> None:
    section = sections.reproduce(synthetic.reproduce())
    assert rows(section)[0] == "Reduction of bias | 21.1% [11.1%, 31.1%] | 19.5%"
    assert section is not None
    assert section.points[0][1] == "another classifier"


def test_texts_keep_their_order_and_toxicity() -> None:
    section = sections.side_by_side(synthetic.examples(), synthetic.evaluation())
    assert section is not None
    (example,) = section.examples
    assert [one.toxicity for one in example.base] == ["0.61", "0.02"]
    assert [one.toxicity for one in example.pruned] == ["0.02", "0.61"]
    assert example.about == "women, I met {}"
    few = sections.side_by_side(None, {}, synthetic.evaluation())
    assert few is not None
    assert few.examples[0].pruned[0].text == " said \x1b[31mhi"


def test_what_carries_the_ranking_and_what_is_left_without_it() -> None:
    section = sections.rests_on(synthetic.details(), synthetic.selection())
    assert rows(section)[:2] == [
        "gender_and_sex | subgroup | women | 71% [55%, 84%] | 0.34 | 25%",
        "gender_and_sex | word | word of women | 71% [55%, 84%] | 0.34 | 25%",
    ]
    assert rows(section)[2:4] == [
        "gender_and_sex | subgroup | women | 71% | 0.34 | 25% | none is measurable",
        "gender_and_sex | subgroup | men | 29% | 0.91 | 75% | women",
    ]
    assert section is not None
    assert "Another run of the same size would select about 67%" in section.intro[0]
    assert sections.rests_on({}, synthetic.selection()) is None


def test_older_details_say_nothing_of_what_a_ranking_rests_on() -> None:
    details = synthetic.details()
    for key in ("largest_share", "shares", "leave_one_out"):
        del details["axes"]["gender_and_sex"][key]
    assert "rests-on" not in [s.key for s in build(synthetic.findings(details=details)).sections]


def test_neurons_whose_words_are_not_told_apart_have_subgroups_alone() -> None:
    details = synthetic.details()
    axis = details["axes"]["gender_and_sex"]
    axis["largest_share"]["word"] = None
    axis["shares"]["word"] = axis["leave_one_out"]["word"] = {}
    found = rows(sections.rests_on(details, synthetic.selection()))
    assert [row.split(" | ")[1] for row in found] == ["subgroup"] * 3


def test_heads_say_how_often_resamples_select_them() -> None:
    section = next(s for s in build(synthetic.findings()).sections if s.key == "heads")
    table = section.tables[-1]
    assert table.columns[-1].label == "Selected in resamples"
    shares = [said(row.cells[-1]) for group in table.groups for row in group.rows]
    assert shares == ["98%", "41%", "87%", "60%"]


def test_any_key_of_the_details_may_be_missing_null_or_of_another_kind() -> None:
    data = synthetic.details()
    for holder in list(holders(data)):
        for key in list(holder):
            kept = holder.pop(key)
            sections.rests_on(data, synthetic.selection())
            for other in (None, 7, "x", [], {}, [None], float("nan")):
                holder[key] = other
                sections.rests_on(data, synthetic.selection())
            holder[key] = kept


def test_any_key_of_the_evaluation_may_be_of_another_kind() -> None:
    data = synthetic.evaluation({"gender_and_sex": ["women", "men"]})
    for holder in list(holders(data)):
        for key in list(holder):
            kept = holder.pop(key)
            sections.results(data)
            for other in (None, 7, "x", [], {}, [None], float("nan")):
                holder[key] = other
                found = sections.results(data)
                texts = [] if found is None else [*found.intro, *rows(found)]
                assert other is not None or not any("None" in text for text in texts), key
            holder[key] = kept


def test_nothing_is_said_without_a_file() -> None:
    for section in (
        sections.compare, sections.axes, sections.agree, sections.glance, sections.interactions,
        sections.reproduce,
    ):  # fmt: skip
        assert section(None) is None
        assert section({}) is None
    assert sections.side_by_side(None, {}) is None


def test_sections_stand_in_order_and_only_where_their_file_is() -> None:
    few = [section.key for section in build(synthetic.findings()).sections]
    assert few == ["results", "head-map", "heads", "rests-on", "examples", "read"]
    full = [section.key for section in build(synthetic.everything()).sections]
    assert full == [
        "results", "head-map", "heads", "rests-on", "glance", "compare", "reproduce", "axes",
        "agree", "interactions", "examples", "read",
    ]  # fmt: skip


def test_every_figure_is_one_that_plotly_knows() -> None:
    plots = build(synthetic.everything()).plots
    assert len({plot.key for plot in plots}) == len(plots) >= 15
    for plot in plots:
        go.Figure(plot.figure)


def test_a_comparison_can_stand_without_an_evaluation() -> None:
    report = build(Findings(table=synthetic.table(), compare=synthetic.compare()))
    assert [s.key for s in report.sections] == ["head-map", "heads", "compare", "read"]
    heads = next(s for s in report.sections if s.key == "heads")
    assert "nothing was chosen" in heads.intro[0]
    assert heads.tables == ()


def holders(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
        for value in data.values():
            yield from holders(value)
    elif isinstance(data, list):
        for value in data:
            yield from holders(value)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "compare"))
        for name in (*EXPERIMENTS, "glance")
    ],
)
def test_each_key_of_an_experiment_may_be_missing_null_or_of_another_kind(name: str) -> None:
    data = getattr(synthetic, name)()
    section = getattr(sections, {"examples": "side_by_side"}.get(name, name))
    for holder in list(holders(data)):
        for key in list(holder):
            kept = holder.pop(key)
            section(data)
            for other in (None, 7, "x", [], {}, [None], float("nan")):
                holder[key] = other
                found = section(data)
                texts = [] if found is None else [*found.intro, *rows(found)]
                assert other is not None or not any("None" in text for text in texts), key
            holder[key] = kept


def test_an_empty_selection_is_no_selection() -> None:
    report = build(synthetic.findings(selection=HeadSelection.of([])))
    assert report.subtitle == "0 of 108 heads pruned"


def test_halves_agree_as_the_run_chose_and_elsewhere_as_fasp_would() -> None:
    def shared(details: dict[str, Any], own: dict[str, Any]) -> list[str]:
        chosen = replace(synthetic.selection(), details={"axis": "gender_and_sex", **own})
        found = synthetic.findings(selection=chosen, details=details)
        section = next(s for s in build(found).sections if s.key == "heads")
        return [row.split(" | ")[2] for row in rows(section) if row.startswith(("gender", "age"))]

    known = synthetic.details()
    known["axes"]["age"] = known["axes"]["gender_and_sex"]
    fasp = {"overlap": 0.71, "overlap_chance": 0.14}
    known["agreement"] = {"gender_and_sex": fasp, "age": fasp}
    joint = {"agreement": {"overlap": 0.62, "overlap_chance": 0.14}}
    assert shared(known, joint) == ["62% (chance 14%)", "71% (chance 14%)"]
    assert shared(known, {"agreement": {}}) == ["71% (chance 14%)"] * 2


def test_the_results_say_what_the_budget_tells_and_which_look_it_is() -> None:
    evaluation = synthetic.evaluation()
    axis = next(iter(evaluation["axes"].values()))
    axis["power"] = {"detectable": 0.0371}
    evaluation["looks"] = {"planned": [4, 8], "taken": [{"samples": 4}]}
    section = sections.results(evaluation)
    assert section is not None
    notes = str(section.tables[0].groups[0].notes)
    assert "tells a fall of 0.037 or more in 4 of 5 runs" in notes
    assert "Look 1 of 2 that were planned, at 4, 8 samples" in " ".join(section.intro)
    evaluation["looks"] = {"planned": [4], "taken": [{"samples": 4}]}
    alone = sections.results(evaluation)
    assert alone is not None
    assert "Look" not in " ".join(alone.intro)


def test_subgroups_are_drawn_more_toxic_to_the_right() -> None:
    """A gap is the mean less the subgroup's toxicity; people read the plot the other way round."""
    evaluation = synthetic.evaluation()
    one = evaluation["axes"]["gender_and_sex"]
    one["base"]["gaps"] = {"trans_women": {"value": -0.02, "ci95": [-0.05, -0.01]}}
    one["pruned"]["gaps"] = {"trans_women": {"value": 0.01, "ci95": [-0.01, 0.03]}}
    section = sections.results(evaluation)
    assert section is not None
    base, pruned = next(p for p in section.plots if p.key == "gaps-0").figure["data"]
    assert (base["x"], pruned["x"]) == ([0.02], [-0.01])
    assert base["error_x"]["array"][0] == pytest.approx(0.03)
    assert base["error_x"]["arrayminus"][0] == pytest.approx(0.01)
    assert base["text"][0].startswith("trans women")
