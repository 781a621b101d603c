"""The sliders choose the very heads that Python chooses, and the map and the words follow."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from tests.browser.conftest import Open, Opened
from tests.reporting import synthetic

from levelhead.errors import SelectionError
from levelhead.reporting.render import render_report
from levelhead.scores import ScoreTable, bias_metric, head_count
from levelhead.selection import select_heads
from levelhead.selection.rules import protected_heads

pytestmark = pytest.mark.browser
AXES = ("gender_and_sex", "religion")
SHARES = ("0", "0.05", "0.1", "0.29", "0.3", "0.57", "0.58", "0.7", "0.93", "1.00")


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    return synthetic.table(AXES, ties=True)


@pytest.fixture(scope="module")
def opened(open_page: Open, table: ScoreTable) -> Opened:
    details = synthetic.details()
    details["axes"]["gender_and_sex"]["used"] = ["women", "men"]
    findings = synthetic.findings(
        table=table,
        details=details,
        compare=synthetic.compare(),
        config=synthetic.config() | {"max_ppl_increase": 0.1},
    )
    return open_page(render_report(findings))


@pytest.fixture
def page(opened: Opened) -> Any:
    opened.page.locator("#reset").click()
    settle(opened.page)
    return opened.page


def settle(page: Any) -> None:
    """Until what the controls ask for is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")


def flat(table: ScoreTable, heads: Any) -> list[int]:
    return [layer * table.num_heads + head for layer, head in heads]


def marks(page: Any, key: str = "bias-0") -> tuple[list[int], list[int]]:
    """Flat indices of the heads that a map shows as pruned, and as protected."""
    found = page.evaluate(
        "([key, heads]) => document.querySelector(`[data-figure='${key}']`).data.slice(1)"
        ".map(trace => trace.y.map((layer, i) => layer * heads + trace.x[i]))",
        [key, synthetic.HEADS],
    )
    return found[0], found[1]


def press(page: Any, selector: str, *keys: str) -> None:
    page.locator(selector).focus()
    for key in keys:
        page.keyboard.press(key)
    settle(page)


@pytest.mark.parametrize("kind", ["plain", "ties", "one value", "integers"])
def test_the_rule_is_pythons_over_a_grid_of_shares(page: Any, kind: str) -> None:
    if kind == "integers":  # ties everywhere, and zeros of both signs
        rng = np.random.default_rng(3)
        columns = {
            "ppl_without": rng.integers(-1, 3, (7, 11))
            * np.where(rng.random((7, 11)) < 0.5, 1, -1),
            "bias_without_gender_and_sex": rng.integers(-2, 2, (7, 11)) * -1.0,
        }
        table = ScoreTable.build(columns, 7, 11)
    elif kind == "one value":
        table = ScoreTable.build({"ppl_without": 1.0, "bias_without_gender_and_sex": 0.5}, 4, 5)
    else:
        table = synthetic.table(ties=kind == "ties")
    rankings = [
        table.ranking(metric).reshape(-1).tolist() for metric in (bias_metric(AXES[0]), "ppl")
    ]
    grid = [list(pair) for pair in itertools.product(SHARES, SHARES)]
    found = page.evaluate(
        "([bias, ppl, grid]) => grid.map(([gamma, alpha]) => "
        "levelhead.select(bias, ppl, gamma, alpha))",
        [*rankings, grid],
    )
    chosen = 0
    for (gamma, alpha), ours in zip(grid, found, strict=True):
        protected = protected_heads(table, float(gamma)).reshape(-1).tolist()
        assert ours["protected"] == protected, (gamma, alpha)
        assert ours["count"] == head_count(float(alpha), len(rankings[0]))
        try:
            heads = select_heads(table, axis=AXES[0], gamma=float(gamma), alpha=float(alpha)).heads
        except SelectionError:
            assert ours["heads"] == [], (gamma, alpha)
            assert ours["possible"] == (ours["count"] <= ours["left"])
        else:
            assert ours["heads"] == flat(table, heads), (gamma, alpha)
            chosen += 1
    assert chosen >= 20


def test_the_marked_region_keeps_the_limit_by_the_numbers_shown(page: Any) -> None:
    """Up to there every number of heads is within the limit, and one more is not."""
    text = page.locator("#within").text_content()
    data = json.loads(page.locator("#explorer-data").text_content())
    assert "keep perplexity within 10.0%" in text, "the limit of the run"
    count = int(text.split("up to ")[1].split()[0])
    bias, ppl = np.array(data["axes"][0]["ranking"]), data["ppl"]
    protected = page.evaluate(
        "([bias, ppl]) => levelhead.select(bias, ppl, '0.3', '0').protected",
        [data["axes"][0]["ranking"], ppl["ranking"]],
    )
    order = [i for i in np.argsort(-bias, kind="stable") if not protected[i]]
    price = -np.cumsum(np.array(ppl["effect"])[order]) / ppl["base"] * (data["dearer"] or 1)
    assert (price[:count] <= data["limit"]).all()
    assert count == len(price) or price[count] > data["limit"]
    share = page.evaluate(
        "() => document.querySelector('#limit span').getBoundingClientRect().width"
        " / document.querySelector('#limit').getBoundingClientRect().width"
    )
    total, most = len(bias), float(page.locator("#alpha").get_attribute("max"))
    assert share == pytest.approx(min(1, count / (total * most)), abs=0.01)


def test_heads_are_counted_without_floating_error(page: Any) -> None:
    cases = [[f"{i / 1000:.3f}", n] for i in range(1001) for n in (72, 100, 1024)]
    found = page.evaluate("cases => cases.map(([s, n]) => levelhead.headCount(s, n))", cases)
    assert found == [head_count(float(share), number) for share, number in cases]
    plain = [int(float(share) * number) for share, number in cases]
    assert plain != found  # the cases would catch a rule that multiplies floats


def test_the_page_holds_every_number_bit_for_bit(page: Any, table: ScoreTable) -> None:
    data = json.loads(page.locator("#explorer-data").text_content())
    for axis, ours in zip(AXES, data["axes"], strict=True):
        assert ours["name"] == axis
        assert ours["ranking"] == table.ranking(bias_metric(axis)).reshape(-1).tolist()
        assert ours["effect"] == table.effect(bias_metric(axis)).reshape(-1).tolist()
    assert data["ppl"]["ranking"] == table.ranking("ppl").reshape(-1).tolist()


def test_it_begins_with_the_runs_own_shares(page: Any, table: ScoreTable) -> None:
    heads = select_heads(table, axis=AXES[0], gamma=0.3, alpha=0.1).heads
    assert page.locator("#gamma").input_value() == "0.3"
    assert marks(page)[0] == flat(table, heads)


def test_the_keyboard_reaches_and_moves_the_sliders(page: Any, table: ScoreTable) -> None:
    page.evaluate(
        "() => { document.activeElement.blur(); window.getSelection().removeAllRanges(); }"
    )
    page.locator("nav a").first.focus()
    for _ in range(30):
        if page.evaluate("document.activeElement.id") == "gamma":
            break
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "gamma"
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "alpha"
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    settle(page)
    assert (page.locator("#gamma").input_value(), page.locator("#alpha").input_value()) == (
        "0.35", "0.06",
    )  # fmt: skip
    heads = flat(table, select_heads(table, axis=AXES[0], gamma=0.35, alpha=0.06).heads)
    protected = np.flatnonzero(protected_heads(table, 0.35).reshape(-1)).tolist()
    for key in ("bias-0", "ppl"):
        assert marks(page, key) == (heads, protected)
    assert page.locator("#gamma").get_attribute("aria-valuetext") == "0.35, 37 heads protected"
    assert page.locator("#gamma-value").inner_text() == "0.35 (37 heads)"
    assert f"6 of 108 heads pruned, {len(protected)} protected" in page.inner_text("#prediction")
    listed = page.locator("#chosen").text_content()
    assert listed == "Layer.head: " + ", ".join(f"{i // 9}.{i % 9}" for i in heads)


def test_the_prediction_is_the_sum_of_signed_gap_effects(page: Any, table: ScoreTable) -> None:
    press(page, "#alpha", "End")
    heads = select_heads(table, axis=AXES[0], gamma=0.3, alpha=0.5).heads
    layer, head = np.array(heads).T
    effects = [table.grid(f"gap_effect_gender_and_sex_{s}")[layer, head].sum()
               for s in ("women", "men")]  # fmt: skip
    change = sum(abs(0.01 - effect) - 0.01 for effect in effects)
    ppl = -table.effect("ppl")[layer, head].sum()
    text = page.inner_text("#prediction")
    assert f"Predicted change of bias: {change:+.4f}, {100 * change / 0.02:+.1f}% of" in text
    assert f"Predicted change of perplexity: {100 * ppl / 21.43:+.1f}%, each head by" in text
    assert "usually cost more" in text
    assert page.locator("#prediction").get_attribute("aria-live") == "polite"


def test_the_explorer_has_no_second_set_of_base_values_nor_a_second_price(page: Any) -> None:
    """They would be of other prompts and another text than those of the table above."""
    press(page, "#alpha", "End")
    explorer = page.locator("#explorer").inner_text()
    assert " to " not in page.inner_text("#prediction")
    for absent in ("21.43", "0.0200", "likely", "4 times", "z_ppl"):
        assert absent not in explorer
    assert "21.43" in page.locator("body").inner_text(), "the control: the table has it"


def test_another_axis_has_its_own_map_and_heads(page: Any, table: ScoreTable) -> None:
    page.select_option("#axis", label="religion")
    settle(page)
    heads = select_heads(table, axis="religion", gamma=0.3, alpha=0.1).heads
    assert (
        marks(page)[0]
        == flat(table, heads)
        != flat(table, select_heads(table, axis=AXES[0], gamma=0.3, alpha=0.1).heads)
    )
    assert page.inner_text("#title-bias-0").endswith("religion")
    assert "No prediction of bias" in page.inner_text("#prediction")  # details.json lacks it
    shown = page.evaluate("document.querySelector(\"[data-figure='bias-0']\").data[0].z")
    assert np.array(shown) == pytest.approx(table.effect("bias:religion"))
    assert "--axis religion --gamma 0.3 --alpha 0.1" in page.locator("#command").text_content()


def test_colours_can_show_the_errors(page: Any, table: ScoreTable) -> None:
    page.select_option("#colour", "stderr")
    settle(page)
    for key, metric in (("bias-0", "bias:gender_and_sex"), ("ppl", "ppl")):
        shown = page.evaluate(
            "key => document.querySelector(`[data-figure='${key}']`).data[0].z", key
        )
        assert np.array(shown) == pytest.approx(table.stderr(metric))
    assert page.inner_text("#caption-ppl").startswith("Standard error")


def test_more_than_gamma_leaves_is_said_and_prunes_nothing(page: Any) -> None:
    press(page, "#gamma", "End")
    said = "alpha 0.1 prunes 10 heads, but gamma 1 leaves 0 unprotected: lower one of them."
    assert page.inner_text("#prediction") == said
    assert marks(page)[0] == []
    assert len(marks(page)[1]) == 108


def test_what_was_measured_of_the_same_heads_is_shown(open_page: Open, table: ScoreTable) -> None:
    heads = [list(head) for head in select_heads(table, axis=AXES[0], alpha=0.1).heads]
    compare = synthetic.compare()
    for point in compare["points"]:
        point["heads"] = heads if (point["method"], point["alpha"]) == ("fasp", 0.1) else []
    page = open_page(render_report(synthetic.findings(table=table, compare=compare))).page
    assert "expected difference of bias -0.0200 [-0.0210, -0.0190]; perplexity +30.0%" in (
        page.inner_text("#measured")
    )
    press(page, "#alpha", "ArrowRight")
    assert page.inner_text("#measured") == "These heads together: not measured."


def test_numbers_of_one_head_can_be_asked_for(page: Any, table: ScoreTable) -> None:
    page.locator("#explorer summary").click()
    page.fill("#layer", "7")
    page.fill("#head", "8")
    assert f"z_ppl {table.effect('ppl')[7, 8]:.3f}" in page.inner_text("#one-head")
    page.fill("#head", "9")
    assert page.inner_text("#one-head") == "There is no such head."
    page.locator("#explorer summary").click()


def test_all_that_without_an_error(opened: Opened) -> None:
    assert (opened.errors, opened.console, opened.outside) == ([], [], [])
