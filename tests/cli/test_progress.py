"""Progress: how long it will still take, and Ctrl-C in two steps."""

import os
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma import api
from trilemma.cli.eta import Eta, show_left
from trilemma.cli.progress import _lines, progress
from trilemma.cli.stopping import stoppable


def told(steps, total, now="simulating"):
    """The times left that are told at each (seconds, done)."""
    eta = Eta()
    return [eta.left_s(done, total, now, at_s) for at_s, done in steps]


def test_an_even_pace_is_told_after_a_few_percent_and_runs_down_with_the_clock():
    left = told([(float(s), s) for s in range(101)], 100)
    assert left[:3] == [None, None, None]
    assert left[3:] == pytest.approx([100.0 - s for s in range(3, 101)])


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 20)), min_size=1, max_size=60))
def test_the_time_left_is_never_negative_and_nought_at_the_end(changes):
    at_s, done, steps = 0.0, 0, []
    for seconds, more in changes:
        at_s, done = at_s + seconds, done + more
        steps.append((at_s, done))
    assert all(left is None or left >= 0 for left in told(steps, done + 1))
    assert told(steps, done)[-1] == 0.0


def test_what_was_answered_at_once_says_nothing_of_the_rest():
    """Half is in the store and comes in a second, the rest takes a second a piece."""
    steps = [(s / 50, s) for s in range(51)] + [(float(s - 49), s) for s in range(51, 101)]
    left = told(steps, 100)
    assert left[80] == pytest.approx(20, rel=0.3)
    late = [seconds for seconds in left[70:] if seconds is not None]
    assert late == sorted(late, reverse=True)


def test_a_new_phase_starts_anew():
    eta = Eta()
    for s in range(50):
        eta.left_s(s, 100, "bounding", float(s))
    assert eta.left_s(0, 1000, "simulating", 50.0) is None
    assert eta.left_s(0, 30, "simulating", 50.0) is None


def test_thousands_of_steps_are_remembered_in_part(monkeypatch):
    eta = Eta()
    for s in range(5000):
        eta.left_s(s, 5000, "simulating", 0.01 * s)
    assert eta.left_s(4500, 5000, "again", 60.0) is None
    assert len(eta._seen) < 3000


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (0.2, "1 s left"), (94, "95 s left"), (96, "2 min left")])
def test_the_time_left_is_said_roughly(seconds, text):
    assert show_left(seconds) == text


def test_without_a_terminal_a_line_now_and_then(capsys):
    seconds = iter(range(0, 1000, 10))
    advance = _lines("candidates", clock=lambda: float(next(seconds)))
    for done in range(10):
        advance(done, 10, "simulating")
    advance(10, 10, "done")
    assert capsys.readouterr().err == (
        "candidates: 10\n"
        "candidates: 3 of 10 70 s left\n"
        "candidates: 6 of 10 40 s left\n"
        "candidates: 9 of 10 10 s left\n"
    )  # fmt: skip


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def work(*, may_stop, interrupts, steps=1, deaf=False):
    """Steps of work behind a first one, with so many Ctrl-C before them; deaf work goes on when it is asked to stop."""
    with progress("work", quiet=True, may_stop=may_stop) as advance:
        if steps:
            advance(0, 3, "work")
        for _ in range(interrupts):
            ctrl_c()
        if not deaf:
            advance(steps, 3, "work")
        return "the best so far"


def test_the_first_ctrl_c_asks_for_an_end(capfd):
    assert work(may_stop=True, interrupts=1, deaf=True) == "the best so far"
    assert "stopping with the best so far; Ctrl-C again stops at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    "how",
    [
        {"may_stop": True, "interrupts": 2, "deaf": True},  # asked twice
        {"may_stop": True, "interrupts": 1, "steps": 0, "deaf": True},  # there is nothing yet to end with
        {"may_stop": True, "interrupts": 1},  # stopped, and nothing was found
        {"may_stop": False, "interrupts": 1, "deaf": True},
    ],
)
def test_otherwise_it_ends_the_program(how):
    with pytest.raises(KeyboardInterrupt):
        work(**how)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_work_is_told_by_its_progress():
    heard = []

    def listens():
        with progress("work", quiet=True, may_stop=True) as advance:
            advance(0, 3, "work")
            ctrl_c()
            try:
                advance(1, 3, "work")
            except api.Interrupted as wish:
                heard.append(str(wish))

    listens()
    assert heard == ["stopped after 1 of 3"]


def test_other_threads_are_left_alone():
    found = []

    def work():
        with stoppable() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
