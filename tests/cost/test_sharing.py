"""What bills share: results kept by the objects they are made from, and replicas of all hours reckoned at once."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.cost.sharing import MOST, made_once
from trilemma.cost.sizing import replicas_each, replicas_for


class Thing:
    """An object that equals every other, as two schedules with the same numbers do."""

    def __eq__(self, other):
        return True

    __hash__ = None


def counting():
    calls = []

    @made_once
    def function(*things, more=0):
        calls.append((things, more))
        return len(calls)

    return function, calls


def test_the_same_objects_are_asked_once():
    function, calls = counting()
    one, other = Thing(), Thing()
    assert [function(one, other), function(one, other), function(other, one)] == [1, 1, 2]
    assert len(calls) == 2


def test_objects_that_equal_each_other_are_told_apart():
    function, _ = counting()
    one, other = Thing(), Thing()
    assert (function(one), function(other), function(one)) == (1, 2, 1)


def test_plain_values_are_compared_as_values():
    function, _ = counting()
    one = Thing()
    assert (function(one, more=1000), function(one, more=int("1000")), function(one, more=2)) == (1, 1, 2)


def test_an_object_made_where_another_was_is_not_taken_for_it():
    function, calls = counting()
    for _ in range(3 * MOST):
        function(Thing())  # its memory is free for the next one, unless it is held
        gc.collect(0)
    assert len(calls) == 3 * MOST


def test_a_call_that_fails_is_not_kept():
    asked = []

    @made_once
    def failing(thing):
        asked.append(thing)
        raise ValueError("no price")

    one = Thing()
    for _ in range(2):
        with pytest.raises(ValueError, match="no price"):
            failing(one)
    assert len(asked) == 2


@given(
    loads=st.lists(st.floats(0, 1e6), min_size=1, max_size=24),
    capacity=st.floats(1e-3, 1e5),
    headroom=st.floats(0, 3),
    spare=st.integers(0, 4),
    at_least=st.integers(0, 3),
)
def test_many_loads_need_what_each_needs_alone(loads, capacity, headroom, spare, at_least):
    policy = {"headroom": headroom, "spare": spare}
    together = replicas_each(np.array(loads), capacity, at_least=at_least, **policy)
    assert together.tolist() == [max(at_least, replicas_for(load, capacity, **policy)) for load in loads]


def test_what_one_load_may_not_be_none_of_many_may():
    with pytest.raises(ValueError, match="at least 0"):
        replicas_each(np.array([1.0, -1.0]), 1.0)
