"""Windows, thinning and tiling lose nothing, invent nothing and keep the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.tables import rows_of, same, tables
from trilemma.errors import InputError
from trilemma.workload.prefix import cached_tokens
from trilemma.workload.requests import Requests
from trilemma.workload.transform import split, thin, tile, window

TIMES = st.sampled_from([0.25, 1.0, 2.0, 3.75, 10.0, 1000.0])


@given(tables(), TIMES)
def test_two_windows_make_the_whole(requests, cut_s):
    before, after = window(requests, 0.0, cut_s), window(requests, cut_s)
    assert rows_of(before) + rows_of(after) == rows_of(requests)
    assert (before.arrival_s < cut_s).all()
    assert (after.arrival_s >= 0).all()
    assert np.array_equal(after.arrival_s + cut_s, requests.arrival_s[len(before) :])


@given(tables(), st.integers(1, 6))
def test_parts_make_the_whole(requests, parts):
    pieces = split(requests, parts)
    assert sum(len(piece) for piece in pieces) == len(requests)
    assert sorted(map(repr, (row for piece in pieces for row in rows_of(piece)))) == sorted(
        map(repr, rows_of(requests))
    )
    assert max(len(piece) for piece in pieces) - min(len(piece) for piece in pieces) <= 1
    for offset, piece in enumerate(pieces):
        assert np.array_equal(piece.arrival_s, requests.arrival_s[offset::parts])
        assert same(piece, thin(requests, parts, offset))


@given(tables(min_size=2), st.integers(1, 5))
def test_tiling_multiplies_requests_and_tokens(requests, times):
    tiled = tile(requests, times)
    assert len(tiled) == times * len(requests)
    assert tiled.prompt_tokens.sum() == times * requests.prompt_tokens.sum()
    assert tiled.output_tokens.sum() == times * requests.output_tokens.sum()
    assert same(tiled.take(slice(0, len(requests))), requests)


@given(tables(min_size=2, blocks=True), st.integers(2, 4))
def test_tiled_copies_share_no_block_and_no_session(requests, times):
    tiled = tile(requests, times)
    n = len(requests)
    copies = [tiled.take(slice(copy * n, (copy + 1) * n)) for copy in range(times)]
    for what in ("block_ids", "session"):
        sets = [set(getattr(copy, what).tolist()) for copy in copies]
        assert sum(map(len, sets)) == len(set().union(*sets))
    assert np.array_equal(cached_tokens(tiled), np.tile(cached_tokens(requests), times))


@given(tables(min_size=1), st.sampled_from([0.5, 2.0, 8.0]))
def test_a_rate_factor_scales_times_and_nothing_else(requests, factor):
    faster = requests.at_rate(factor)
    assert rows_of(faster) == rows_of(requests)
    assert np.array_equal(faster.arrival_s * factor, requests.arrival_s)


def three(**extra):
    ones = np.ones(3, dtype=np.int64)
    return Requests(arrival_s=np.array([0.0, 2.0, 4.0]), prompt_tokens=ones, output_tokens=ones, **extra)


def test_tiling_keeps_the_mean_gap_across_copies():
    assert tile(three(), 2).arrival_s.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert tile(three(), 2, period_s=100.0).arrival_s.tolist() == [0.0, 2.0, 4.0, 100.0, 102.0, 104.0]


def test_tiling_repeats_think_times_and_priorities():
    nan = float("nan")
    requests = three(session=np.array([0, 0, 1]), think_s=np.array([nan, 2.0, nan]), priority=np.array([1, 0, 2]))
    tiled = tile(requests, 2)
    assert np.array_equal(tiled.think_s, [nan, 2.0, nan, nan, 2.0, nan], equal_nan=True)
    assert tiled.priority.tolist() == [1, 0, 2, 1, 0, 2]
    assert tiled.session.tolist() == [0, 0, 1, 2, 2, 3]


def test_tiling_ids_at_the_end_of_64_bits():
    far = three(session=np.array([5, 2**63 - 1, 5]))
    assert tile(far, 2).session.tolist() == [0, 1, 0, 2, 3, 2]


def test_a_window_is_half_open_and_may_be_empty():
    assert window(three(), 2.0, 4.0).arrival_s.tolist() == [0.0]
    assert len(window(three(), 5.0)) == 0


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: window(three(), -1.0), "window.start"),
        (lambda: window(three(), float("nan")), "window.start"),
        (lambda: window(three(), 2.0, 2.0), "window.end"),
        (lambda: window(three(), 2.0, float("nan")), "window.end"),
        (lambda: thin(three(), 0), "thin.every"),
        (lambda: thin(three(), 2, 2), "thin.offset"),
        (lambda: tile(three(), 0), "tile.times"),
        (lambda: tile(three(), 2, period_s=3.9), "tile.period_s"),
        (lambda: tile(three(), 2, period_s=float("nan")), "tile.period_s"),
        (lambda: tile(three().take(slice(0, 1)), 2), "tile.period_s"),
    ],
)
def test_bad_arguments_are_named(call, where):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.where == where


@pytest.mark.parametrize(
    "extra",
    [
        {"block_offsets": np.array([0, 1, 1, 2])},
        {"block_offsets": np.array([0, 1, 2]), "block_ids": np.array([1, 2]), "block_tokens": 4},
        {"block_offsets": np.array([0, 2, 1, 2]), "block_ids": np.array([1, 2]), "block_tokens": 4},
        {"block_offsets": np.array([0, 1, 1, 2]), "block_ids": np.array([1, 2])},
        {"session": np.array([1, 2])},
    ],
)
def test_a_table_with_inconsistent_arrays_is_refused(extra):
    with pytest.raises(ValueError, match=r"block|length"):
        three(**extra)
