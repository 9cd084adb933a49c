"""The largest value at which a predicate holds, found in few questions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.search.bisect import largest

sizes = st.floats(1e-6, 1e6)


class Threshold:
    """Holds up to an edge, and remembers what it was asked."""

    def __init__(self, edge):
        self.edge, self.asked = edge, []

    def __call__(self, x):
        self.asked.append(x)
        return x <= self.edge


@given(sizes, sizes, sizes, st.floats(1e-4, 0.5), st.integers(1, 30))
def test_a_threshold_is_found_to_the_precision_asked(edge, guess, most, precision, shrinks):
    holds = Threshold(edge)
    found = largest(holds, guess=guess, most=most, precision=precision, shrinks=shrinks)
    start = min(guess, most)
    if edge >= most:
        assert found == most
    elif edge < start / 2**shrinks:
        assert found == 0.0
    else:
        assert found <= edge < found * (1 + precision) * (1 + 1e-9)
    assert all(0 < x <= most for x in holds.asked)
    assert found == 0.0 or found in holds.asked
    assert len(holds.asked) == len(set(holds.asked))


@given(sizes, sizes, sizes, st.floats(1e-3, 0.5))
def test_questions_grow_with_the_logarithm_alone(edge, guess, most, precision):
    holds = Threshold(edge)
    largest(holds, guess=guess, most=most, precision=precision)
    doublings = abs(math.log2(max(min(edge, most), min(guess, most) / 64) / min(guess, most)))
    halvings = math.log2(math.log(2) / math.log1p(precision)) + 1
    assert len(holds.asked) <= doublings + max(0, halvings) + 4


@given(st.sets(st.integers(1, 400), max_size=30), st.integers(1, 400), st.integers(1, 400))
def test_whatever_the_predicate_the_answer_is_a_value_where_it_held(bad, guess, most):
    """Not monotonic: no promise of the highest, but never a value that does not hold, and no endless search."""
    found = largest(lambda x: round(x) not in bad, guess=guess, most=most, precision=0.01)
    assert 0 <= found <= most
    assert found == 0 or round(found) not in bad


@pytest.mark.parametrize(
    "bad",
    [
        {"guess": 0.0},
        {"guess": -1.0},
        {"guess": math.nan},
        {"guess": math.inf},
        {"most": 0.0},
        {"most": math.inf},
        {"precision": 0.0},
    ],
)
def test_searches_that_could_not_end_are_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        largest(lambda _x: True, **{"guess": 1.0, "most": 5.0, "precision": 0.01} | bad)


def test_the_edge_of_the_range_is_asked_once():
    holds = Threshold(math.inf)
    assert largest(holds, guess=9.0, most=5.0, precision=0.01) == 5.0
    assert holds.asked == [5.0]
