"""An explanation whose parts are worked out at the same time says the same, and ends when it is told to."""

from dataclasses import replace
from threading import Lock

import pytest

from tests.planner.questions import CLOSED, DAY, answer, question
from trilemma.planner.explain import explain
from trilemma.planner.plan import HERE, Interrupted
from trilemma.planner.work import Stoppable, side_by_side
from trilemma.report.plan_explanation import explanation_dict

BOUNDED = {"space.max_gpus": 64, "space.max_nodes": 16}
GOODPUT = {"limits": ["goodput >= 99%", "ttft p50 <= 300 ms", "itl p90 <= 20 ms"]}


class Shared:
    """Does the work here, one item at a time, whichever thread asks."""

    is_shared = True

    def __init__(self):
        self.busy, self.maps = Lock(), 0

    def map(self, function, items):
        self.maps += 1
        for item in items:
            with self.busy:
                result = function(item)
            yield result


class Ordered:
    """The same, for one thread after another."""

    def map(self, function, items):
        return HERE.map(function, items)


@pytest.mark.parametrize("changes", [DAY | BOUNDED, CLOSED, GOODPUT])
def test_an_explanation_does_not_depend_on_what_is_worked_out_at_once(changes):
    asked, found = question(changes), answer(changes)
    shared = Shared()
    (_, at_once), (_, in_turn) = explain(asked, found, shared), explain(asked, found, Ordered())
    assert explanation_dict(at_once) == explanation_dict(in_turn)
    assert at_once.simulations == in_turn.simulations > 0
    assert shared.maps


def test_an_explanation_is_stopped_between_two_prices():
    asked, found = question(BOUNDED), answer(BOUNDED)

    def stops(done, total, what):
        if done:
            raise Interrupted

    for executor in (Shared(), Ordered()):
        stopped, told = explain(asked, found, executor, stops)
        whole = explain(asked, found, Ordered())[1]
        assert not stopped.complete
        assert told.stopped_in == "explanation"
        assert explanation_dict(told) == explanation_dict(
            replace(whole, limit_prices=whole.limit_prices[:1], stopped_in="explanation")
        )


def test_a_stopped_executor_gives_no_more_results():
    executor = Stoppable(HERE)
    results = iter(executor.map(abs, [-1, -2]))
    assert next(results) == 1
    executor.stop()
    with pytest.raises(Interrupted):
        next(results)
    with pytest.raises(Interrupted):
        next(iter(executor.map(abs, [-1])))


def test_work_is_begun_at_once_where_threads_share_an_executor_and_when_it_is_waited_for_elsewhere():
    begun = []
    with side_by_side(HERE) as begin:
        wait = begin(lambda: begun.append("here"))
        assert begun == []
        wait()
    with side_by_side(Shared()) as begin:
        begin(lambda: begun.append("there"))
    assert begun == ["here", "there"]  # the block waits for it
    with pytest.raises(ZeroDivisionError), side_by_side(Shared()) as begin:
        begin(lambda: 1 // 0)()
