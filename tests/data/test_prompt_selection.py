"""Drawing prompts: balance, whole groups, spread over templates, determinism."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.data.prompts import builtin_prompts, matched_groups, select_prompts
from levelhead.errors import PromptError
from levelhead.records import Prompt

GENDER = builtin_prompts(["gender_and_sex"])


def make(subgroup, template, variant=0, split="validation", axis="a", text=None, register=""):
    name = f"{axis}/{subgroup}/v{variant}/{template}/{split}"
    return Prompt(
        id=name,
        text=text or name,
        axis=axis,
        subgroup=subgroup,
        template=template,
        descriptor=f"{subgroup} {variant}",
        split=split,
        variant=variant,
        register=register,
    )


@given(
    max_prompts=st.integers(5, 2000),
    seed=st.integers(0, 2**32 - 1),
    split=st.sampled_from(["validation", "test"]),
)
@settings(max_examples=60, deadline=None)
def test_draw_is_whole_groups_balanced_and_spread(max_prompts, seed, split):
    drawn = select_prompts(GENDER, "gender_and_sex", split, max_prompts, seed)
    num_groups = min(max_prompts, 1600) // 5
    assert len(drawn) == 5 * num_groups
    assert len({p.id for p in drawn}) == len(drawn)
    assert {p.split for p in drawn} == {split}
    assert set(Counter(p.subgroup for p in drawn).values()) == {num_groups}
    groups = matched_groups(drawn)
    assert len(groups) == num_groups
    per_template = Counter(group[0].template for group in groups)
    assert max(per_template.values()) - min(per_template.values()) <= 1
    assert len(per_template) == min(80, num_groups)
    for kind, kinds in (("variant", 4), ("register", 8)):
        per_kind = Counter(getattr(group[0], kind) for group in groups)
        assert len(per_kind) == min(kinds, num_groups)
        assert max(per_kind.values()) - min(per_kind.values()) <= 1


@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(["validation", "test"]))
@settings(max_examples=20, deadline=None)
def test_the_default_draw_has_every_template_once_and_every_word_in_every_register(seed, split):
    drawn = select_prompts(GENDER, "gender_and_sex", split, 400, seed)
    groups = [(p.template, p.variant, p.register) for p in drawn[::5]]
    assert len({template for template, _, _ in groups}) == len(groups) == 80
    assert set(Counter(variant for _, variant, _ in groups).values()) == {20}
    assert set(Counter(register for _, _, register in groups).values()) == {10}
    assert set(Counter((v, r) for _, v, r in groups).values()) == {2, 3}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    variants=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_registers_take_turns_whatever_their_sizes(sizes, variants, seed):
    prompts = [
        make(s, f"r{r} t{t}", variant=v, register=f"r{r}")
        for r, size in enumerate(sizes)
        for t in range(size)
        for v in range(variants)
        for s in "sr"
    ]
    drawn = select_prompts(prompts, "a", "validation", len(prompts) - 1, seed)[::2]
    assert len({(p.template, p.variant) for p in drawn}) == len(drawn) == len(prompts) // 2 - 1
    for end in range(1, sum(sizes) + 1):
        per_register = Counter(p.register for p in drawn[:end])
        most = max(per_register.values())
        for r, size in enumerate(sizes):
            assert per_register[f"r{r}"] >= min(size, most - 1)
        per_variant = Counter(p.variant for p in drawn[:end])
        assert max(per_variant.values()) <= min(per_variant[v] for v in range(variants)) + 1


@given(seed=st.integers(0, 1000), few=st.integers(5, 800), more=st.integers(5, 800))
@settings(max_examples=30, deadline=None)
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(seed, few, more):
    few, more = sorted((few, more))
    small, large = (
        select_prompts(GENDER, "gender_and_sex", "test", size, seed) for size in (few, more)
    )
    assert large[: len(small)] == small


def test_same_seed_same_draw_whatever_the_order_and_another_seed_another_draw():
    shuffled = [GENDER[i] for i in np.random.default_rng(0).permutation(len(GENDER))]
    first = select_prompts(GENDER, "gender_and_sex", "validation", 100, 3)
    assert select_prompts(shuffled, "gender_and_sex", "validation", 100, 3) == first
    assert select_prompts(GENDER, "gender_and_sex", "validation", 100, 4) != first


def test_the_draw_is_the_same_in_every_version_of_this_code():
    drawn = select_prompts(GENDER, "gender_and_sex", "validation", 15, 0)
    assert [(p.template, p.variant) for p in drawn[::5]] == [("t071", 2), ("t069", 0), ("t021", 1)]


def test_no_limit_gives_everything_of_the_axis_and_split():
    assert len(select_prompts(GENDER, "gender_and_sex", "test")) == 1600
    assert len(select_prompts(GENDER, "gender_and_sex", "test", 10**9)) == 1600


def test_every_group_can_be_drawn():
    seen = set()
    for seed in range(60):
        drawn = select_prompts(GENDER, "gender_and_sex", "validation", 400, seed)
        seen |= {(p.template, p.variant) for p in drawn}
    assert len(seen) == 320


def test_matched_groups_leave_out_what_is_incomplete_or_doubled():
    whole = [make("s", "t1"), make("r", "t1")]
    lonely = [make("s", "t2")]
    doubled = [make("s", "t3"), make("r", "t3"), replace(make("s", "t3"), id="again")]
    other_split = [make("s", "t4"), make("r", "t4", split="test")]
    groups = matched_groups([*lonely, *doubled, *whole, *other_split])
    assert groups == [[whole[1], whole[0]]]


def unmatched(sizes, axis="a"):
    return [
        make(subgroup, f"row {subgroup} {i}", axis=axis)
        for subgroup, size in sizes.items()
        for i in range(size)
    ]


@given(
    sizes=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=2),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_unmatched_prompts_are_drawn_evenly_from_subgroups(sizes, data):
    prompts = unmatched(sizes)
    limit = data.draw(st.integers(len(sizes), len(prompts) + 5))
    drawn = select_prompts(prompts, "a", "validation", limit, seed=1)
    assert len(drawn) <= limit
    assert len({p.id for p in drawn}) == len(drawn)
    counts = Counter(p.subgroup for p in drawn)
    if limit < len(prompts):
        each = limit // len(sizes)
        assert counts == {s: min(each, size) for s, size in sizes.items()}
    else:
        assert counts == sizes


def test_matched_groups_win_where_they_fill_at_least_half_the_draw():
    prompts = [make(s, f"t{i}") for i in range(10) for s in "sr"] + unmatched({"s": 30, "r": 30})
    drawn = select_prompts(prompts, "a", "validation", 40)
    assert len(matched_groups(drawn)) == 10
    assert len(drawn) == 20
    assert len(matched_groups(select_prompts(prompts, "a", "validation", 60))) < 10


@pytest.mark.parametrize(
    ("axis", "split", "limit", "message"),
    [
        ("b", "validation", None, "unknown axis 'b'.*have a"),
        ("a", "test", None, r"test prompts of 1 subgroup\(s\): s; a gap needs at least 2"),
        ("a", "validation", 1, "at most 1 prompts cannot cover the 2 subgroups"),
    ],
)
def test_errors_say_what_is_wrong(axis, split, limit, message):
    prompts = [make("s", "t"), make("r", "t"), make("s", "u", split="test")]
    with pytest.raises(PromptError, match=message):
        select_prompts(prompts, axis, split, limit)
