"""The integer table: what it adds up, and what it refuses."""

import numpy as np
import pytest

from trilemma.latency.table import FRACTION_BITS, StepTable

GOOD = {
    "token_ps": np.array([0, 100, 200, 300]),
    "prefill_ps": np.array([0, 7, 8, 9]),
    "decode_ps": np.array([0, 0, 0]),
    "sequence_ps": np.array([0, 40, 50]),
    "context_fp": 3 << FRACTION_BITS,
    "pair_fp": 5 << FRACTION_BITS,
}


def test_a_step_is_the_sum_of_its_rows_and_its_context():
    table = StepTable(**GOOD)
    assert table.step_ps(prefill_tokens=2, decodes=1, sampling=2, context_sum=11, pair_sum=6) == (
        300 + 8 + 50 + 3 * 11 + 5 * 6
    )


def test_fractions_of_a_picosecond_are_cut_once_over_the_whole_sum():
    table = StepTable(**GOOD | {"context_fp": 1, "pair_fp": 1})
    half = 2 ** (FRACTION_BITS - 1)
    idle = table.step_ps(prefill_tokens=0, decodes=1, sampling=1, context_sum=0, pair_sum=0)
    assert table.step_ps(prefill_tokens=0, decodes=1, sampling=1, context_sum=half, pair_sum=half) == idle + 1
    assert table.step_ps(prefill_tokens=0, decodes=1, sampling=1, context_sum=half, pair_sum=half - 1) == idle


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
        {"context_fp": -1},
        {"pair_fp": -1},
    ],
)
def test_tables_that_would_stall_or_reverse_the_clock_are_refused(bad):
    with pytest.raises(ValueError, match="time|long|negative"):
        StepTable(**GOOD | bad)
