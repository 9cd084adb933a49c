"""The integer table: what it adds up, and what it refuses."""

import numpy as np
import pytest

from trilemma.latency.table import FRACTION_BITS, StepTable

GOOD = {
    "token_ps": np.array([0, 100, 200, 300]),
    "prefill_ps": np.array([0, 7, 8, 9]),
    "decode_ps": np.array([0, 0, 0]),
    "sequence_ps": np.array([0, 40, 50]),
    "context_ps": 3,
    "pair_fp": 5 << FRACTION_BITS,
}


def test_a_step_is_the_sum_of_its_rows_and_its_context():
    table = StepTable(**GOOD)
    assert table.step_ps(prefill_tokens=2, decodes=1, sampling=2, context_sum=11, pair_sum=6) == (
        300 + 8 + 50 + 3 * 11 + 5 * 6
    )


def test_what_is_inside_windows_costs_beside_the_whole_context():
    table = StepTable(**GOOD | {"window_tokens": 4, "window_ps": 7})
    step = {"prefill_tokens": 0, "decodes": 2, "sampling": 2, "context_sum": 13, "pair_sum": 0}
    assert table.step_ps(**step) == 200 + 50 + 3 * 13
    assert table.step_ps(**step, window_sum=4 + 3) == 200 + 50 + 3 * 13 + 7 * 7


def test_fractions_of_a_picosecond_of_pairs_are_cut_once_over_their_sum():
    table = StepTable(**GOOD | {"pair_fp": 1})
    step = {"prefill_tokens": 2, "decodes": 0, "sampling": 1, "context_sum": 0}
    idle = table.step_ps(**step, pair_sum=0)
    assert table.step_ps(**step, pair_sum=2**FRACTION_BITS) == idle + 1
    assert table.step_ps(**step, pair_sum=2**FRACTION_BITS - 1) == idle


def test_a_step_is_no_shorter_than_the_host_s_time_for_the_next():
    """The longer of the two: by the scheduled sequences, which count chunks that emit nothing too."""
    table = StepTable(**GOOD | {"floor_ps": np.array([0, 150, 1000])})
    step = {"prefill_tokens": 0, "decodes": 1, "sampling": 1, "pair_sum": 0}
    assert table.step_ps(**step, context_sum=0) == 150
    assert table.step_ps(**step, context_sum=10) == 150 + 20
    assert table.step_ps(**step, context_sum=10, scheduled=2) == 1000
    assert table.step_ps(**step, context_sum=10**6, scheduled=2) == 140 + 3 * 10**6


def test_no_floor_is_a_floor_of_nothing():
    assert StepTable(**GOOD).floor_ps.tolist() == [0, 0, 0]


def test_the_longest_entry_up_to_a_count_and_the_shortest_step():
    table = StepTable(**GOOD | {"token_ps": np.array([0, 300, 100, 200])})
    assert [table.longest_ps("token_ps", last) for last in (0, 1, 3, 1)] == [0, 300, 300, 300]
    assert [table.longest_ps("sequence_ps", last) for last in (1, 2)] == [40, 50]
    assert table.least_step_ps == table.least_step_ps == 100


@pytest.mark.parametrize(
    "bad",
    [
        {"token_ps": np.array([0])},
        {"token_ps": np.array([0, 100, 0, 300])},
        {"token_ps": np.array([0, -1, 200, 300])},
        {"prefill_ps": np.array([0, -7, 8, 9])},
        {"prefill_ps": np.array([0, 7])},
        {"sequence_ps": np.array([0, -40, 50])},
        {"sequence_ps": np.array([0])},
        {"decode_ps": np.array([0, -1, 0])},
        {"decode_ps": np.array([0, 1])},
        {"context_ps": -1},
        {"pair_fp": -1},
        {"window_tokens": -4, "window_ps": 7},
        {"window_tokens": 4, "window_ps": -7},
        {"window_tokens": 4},
        {"window_ps": 7},
        {"floor_ps": np.array([0, -1, 0])},
        {"floor_ps": np.array([0, 1])},
    ],
)
def test_tables_that_would_stall_or_reverse_the_clock_are_refused(bad):
    with pytest.raises(ValueError, match="time|long|negative|together"):
        StepTable(**GOOD | bad)
