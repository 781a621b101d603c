"""The policy file: read the same by command line and Python, and no misspelling slips through."""

from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelhead.errors import ConfigError
from levelhead.verification.policy import Policy, read_policy

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.toml"


def test_the_example_is_a_policy_that_names_every_key() -> None:
    policy = read_policy(EXAMPLE)
    assert policy.on_inconclusive == "fail"
    assert policy.max_gap_increase == Policy().max_gap_increase == 0.05
    text = EXAMPLE.read_text()
    assert [f.name for f in fields(Policy) if f"{f.name} = " not in text] == []


def test_a_file_its_keys_and_the_object_are_one_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('axes = ["gender"]\nmax_gap_increase = 0.02\nsamples = 2\n')
    keys = {"axes": ["gender"], "max_gap_increase": 0.02, "samples": 2}
    policy = Policy(axes=("gender",), max_gap_increase=0.02, samples=2)
    assert read_policy(file) == read_policy(str(file)) == read_policy(keys) == policy
    assert read_policy(policy) is policy
    assert read_policy(policy.to_json()) == policy
    assert read_policy(None) == Policy() == read_policy({})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"looks": [4, 1]}, "ascending"),
        ({"looks": []}, "ascending"),
        ({"looks": [1.5]}, "ascending"),
        ({"looks": 4}, "ascending"),
        ({"looks": [1, 4], "samples": 8}, "the last look"),
        ({"shared_noise": 1.5}, "a correlation"),
        ({"shared_noise": None}, "not a number"),
        ({"text_variance": -1}, "below 0"),
        ({"unmasked": 1}, "neither true nor false"),
        ({"unmasked": True, "scorer": "masked:sentiment"}, "--unmasked"),
        ({"confidence": 0.5}, "between 0.5 and 1"),
        ({"max_gap_increse": 0.1}, "unknown key 'max_gap_increse'"),
        ({"max_gap_increase": -0.1}, "max_gap_increase = -0.1 is below 0"),
        ({"max_ppl_increase": -1}, "below 0"),
        ({"max_gap_increase": float("nan")}, "not a number"),
        ({"max_gap_increase": None}, "not a number"),
        ({"max_gap_increase": "0.1"}, "not a number"),
        ({"max_gap_increase": True}, "not a number"),
        ({"max_gap_increase": 10**400}, "not a number"),
        ({"seed": 10**30}, "not a whole number"),
        ({"axes": {"gender": 1}}, "nor a list"),
        ({"confidence": 1.0}, "between 0.5 and 1"),
        ({"confidence": 0.05}, "between 0.5 and 1"),
        ({"on_inconclusive": "ignore"}, "choose from pass, fail"),
        ({"axes": "gender"}, 'neither "all" nor a list'),
        ({"axes": []}, "nor a list"),
        ({"axes": ["a", "a"]}, "different names"),
        ({"samples": 0}, "--samples 0"),
        ({"samples": 1.5}, "not a whole number"),
        ({"scorer": 3}, "not a text"),
        ({"toxicity_input": "prompt"}, "--scorer-input 'prompt'"),
    ],
)
def test_what_is_no_policy_is_refused(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=r"policy|--") as found:
        read_policy(keys)
    assert said in str(found.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content in (b"axes = ", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml"):
            read_policy(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_policy(tmp_path / "absent.toml")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=2), st.none()),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Policy)]), VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_value_is_a_policy_or_a_clear_error(keys: dict[str, object]) -> None:
    try:
        policy = read_policy(keys)
    except ConfigError:
        return
    assert read_policy(policy.to_json()) == policy


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_policy_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "policy.toml"
    path.write_bytes(content)
    with suppress(ConfigError):
        assert isinstance(read_policy(path), Policy)


def test_a_file_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("axes = " + "[" * 50_000)
    with pytest.raises(ConfigError, match=r"deep\.toml"):
        read_policy(tmp_path / "deep.toml")


def test_a_policy_of_an_older_levelhead_is_read() -> None:
    keys = {"max_gap_increase": 0.05, "on_inconclusive": "pass", "samples": 2, "axes": "all"}
    assert read_policy(keys).on_inconclusive == "pass"
    assert Policy().on_inconclusive == "fail"


def test_looks_end_at_all_samples() -> None:
    assert Policy().looks_at(4) == (4,)
    policy = read_policy({"looks": [1, 2, 8]})
    assert policy.most_samples == 8
    assert policy.looks_at(8) == (1, 2, 8)
    assert policy.looks_at(2) == (1, 2)
