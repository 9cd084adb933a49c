"""An executor that remembers gives what the one inside gives, and does nothing twice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.store import Remembering, Store


class Counting:
    """Does the work here, and counts it."""

    def __init__(self):
        self.done = []

    def map(self, function, items):
        for item in items:
            self.done.append(item)
            yield function(item)


class Shuffled(Counting):
    """Hands results over in any order, several at once."""

    def arrivals(self, function, items):
        order = list(range(len(items)))
        random.Random(7).shuffle(order)
        while order:
            batch, order = order[:3], order[3:]
            self.done += [items[i] for i in batch]
            yield [(i, function(items[i])) for i in batch]


class Memory:
    """Trials without a database, with every transaction listed."""

    def __init__(self, known=()):
        self.kept, self.transactions = dict(known), []

    def known(self, keys):
        return {key: self.kept[key] for key in keys if key in self.kept}

    def remember(self, results):
        self.transactions.append(dict(results))
        self.kept.update(results)


def square(x):
    return None if x == 5 else x * x


def key_of(function, item):
    return f"{function.__name__} {item}"


@pytest.mark.parametrize("executor", [Counting, Shuffled])
@given(items=st.lists(st.integers(0, 20)), known=st.sets(st.integers(0, 20)))
def test_results_are_those_of_the_executor_inside_in_order_whatever_is_known(executor, items, known):
    inside, memory = executor(), Memory({key_of(square, x): square(x) for x in known})
    assert list(Remembering(inside, memory, key_of).map(square, items)) == list(map(square, items))
    assert sorted(inside.done) == sorted(set(items) - known)
    assert set(memory.kept) == {key_of(square, x) for x in known | set(items)}


def test_each_result_is_kept_before_the_next_is_waited_for():
    memory = Memory()
    seen = []

    def watched(x):
        seen.append(len(memory.kept))
        return x

    assert list(Remembering(Counting(), memory, key_of).map(watched, range(5))) == list(range(5))
    assert seen == [0, 1, 2, 3, 4]
    assert [len(t) for t in memory.transactions] == [1] * 5


def test_what_was_done_before_a_failure_is_kept():
    memory = Memory()

    def fails(x):
        return 10 // (3 - x)

    results = Remembering(Counting(), memory, key_of).map(fails, range(6))
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert memory.kept == {"fails 0": 3, "fails 1": 5, "fails 2": 10}


def test_other_work_on_the_same_item_is_other_work(tmp_path):
    inside = Counting()
    with Store.open(tmp_path / "runs.sqlite") as store:
        remembering = Remembering(inside, store.trials, key_of)
        assert list(remembering.map(square, [2, 3])) == [4, 9]
        assert list(remembering.map(str, [2, 3])) == ["2", "3"]
        assert list(remembering.map(square, [3, 4])) == [9, 16]
    assert inside.done == [2, 3, 2, 3, 4]
    assert (remembering.computed, remembering.recalled) == (5, 1)


def test_nothing_to_do_asks_nobody():
    class Nobody:
        def map(self, function, items):
            raise AssertionError

    assert list(Remembering(Nobody(), Memory({"square 2": 4}), key_of).map(square, [2, 2])) == [4, 4]
    assert list(Remembering(Nobody(), Memory(), key_of).map(square, [])) == []
