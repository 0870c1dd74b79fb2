import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.shared.row_reuse import reusable_rows, row_fingerprint

PART = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.integers(-99, 99),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
)


def typed(parts):
    return [(type(part).__name__, repr(part)) for part in parts]


@given(st.lists(PART, max_size=4), st.lists(PART, max_size=4))
def test_fingerprints_are_equal_exactly_where_the_parts_are(one, other):
    assert (row_fingerprint(*one) == row_fingerprint(*other)) == (typed(one) == typed(other))


def test_parts_do_not_run_into_each_other():
    assert row_fingerprint("ab", "c") != row_fingerprint("a", "bc")
    assert row_fingerprint("a", "") != row_fingerprint("a")
    assert row_fingerprint("a:1:b") != row_fingerprint("a", "b")
    assert len({row_fingerprint(part) for part in (1, 1.0, "1", b"1", True, None)}) == 6


def test_an_array_counts_with_values_type_and_shape_not_with_its_memory():
    array = np.arange(6, dtype=np.float32)
    assert row_fingerprint(array) != row_fingerprint(array.astype(np.float64))
    assert row_fingerprint(array) != row_fingerprint(array.reshape(2, 3))
    assert row_fingerprint(array) != row_fingerprint(array + 1)
    assert row_fingerprint(array[::2]) == row_fingerprint(array[::2].copy())
    transposed = array.reshape(2, 3).T
    assert row_fingerprint(transposed) == row_fingerprint(np.ascontiguousarray(transposed))


@pytest.mark.parametrize("part", [["a"], {"a": 1}, np.array([object()]), np.float32(1)])
def test_what_has_no_sure_bytes_is_an_error_that_names_its_type(part):
    with pytest.raises(TypeError, match=type(part).__name__):
        row_fingerprint(part)


PREVIOUS = pl.DataFrame(
    {
        "row_fingerprint": ["a", "b", "b", "c", "c", None, "d"],
        "value": [1, 2, 3, 4, 5, 6, 7],
        "status": ["ok", "ok", "inactive", "ok", "failed", "ok", "not_reached"],
    }
)


def values_of(found):
    return {key: rows["value"].to_list() for key, rows in found.items()}


def test_only_wanted_rows_come_back_whole_and_in_order():
    assert values_of(reusable_rows(PREVIOUS, ["b", "a", "unknown", "b"])) == {"a": [1], "b": [2, 3]}
    assert reusable_rows(PREVIOUS, ["a"])["a"].columns == PREVIOUS.columns
    assert reusable_rows(PREVIOUS, []) == {}


def test_a_failed_row_takes_its_fingerprint_out_but_other_statuses_are_results():
    assert values_of(reusable_rows(PREVIOUS, ["a", "c", "d"])) == {"a": [1], "d": [7]}


def test_rows_of_an_older_lake_are_never_taken():
    old = PREVIOUS.with_columns(pl.lit(None, dtype=pl.String).alias("row_fingerprint"))
    assert reusable_rows(old, ["a", "b"]) == {}
    assert reusable_rows(PREVIOUS.drop("row_fingerprint"), ["a"]) == {}
    assert reusable_rows(old.clear(), ["a"]) == {}


def test_tables_without_a_status_and_other_columns_work():
    bare = PREVIOUS.drop("status").rename({"row_fingerprint": "made_of"})
    assert values_of(reusable_rows(bare, ["c"], column="made_of")) == {"c": [4, 5]}
