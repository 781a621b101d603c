"""What the journal keeps comes back bit for bit, and nothing else is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.journal.codec import CodecError, decode, encode

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    assert repr(decode(encode(value))) == repr(value)  # also tells NaN, -0.0 and tuples


@given(VALUES)
def test_the_same_value_gives_the_same_bytes(value: object) -> None:
    assert encode(value) == encode(decode(encode(value)))


def test_arrays_keep_every_bit_and_shared_ones_are_written_once() -> None:
    shared = np.random.default_rng(0).standard_normal((50, 3))
    value = [(shared, np.float32(0.1)), (shared, np.array([np.nan, -0.0], dtype=np.float16))]
    content = encode(value)
    (first, number), (second, halves) = decode(content)
    assert first.tobytes() == shared.tobytes()
    assert first.dtype == shared.dtype
    assert first is second
    assert number.tobytes() == np.float32(0.1).tobytes()
    assert type(number) is np.float32
    assert halves.tobytes() == value[1][1].tobytes()
    assert len(content) < 2 * shared.nbytes


@pytest.mark.parametrize("value", [object(), {1: 2}, {3}, b"bytes", [lambda: 0]])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(CodecError):
        encode(value)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(content: bytes) -> None:
    try:
        decode(content)
    except CodecError:
        return
    assert decode(encode(decode(content))) is not NotImplemented  # it happened to be a value


def test_an_array_of_objects_is_never_read() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        encode(np.array([object()]))
