"""Killed at any moment, a plan loses the trial in flight and nothing else.

The child says through a pipe when it is where it is to be killed, and then waits for that: nobody sleeps and hopes.
"""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from tests.planner.questions import SMALL
from trilemma import api
from trilemma.store import Status, Store

CHANGES = {"space.accelerators": ["h100_sxm"], "space.precisions": ["bf16"], "space.max_num_seqs": [64, 128, 256]}
CHILD = textwrap.dedent(
    """
    import sys, threading
    from contextlib import contextmanager
    from pathlib import Path
    from sqlalchemy import event
    import trilemma.api.pool, trilemma.planner.keys
    from trilemma import api
    from trilemma.store.trials import Trials

    trilemma.planner.keys.program_digest = lambda: "the same program"  # even while somebody edits it
    scenario, store, moment, number, changes = sys.argv[1:]
    number, changes = int(number), eval(changes)
    kept = 0


    def here_it_is():
        print("now", flush=True)
        threading.Event().wait()  # until killed


    class Slow:
        def map(self, function, items):
            for item in items:
                if moment == "in a trial" and kept == number:
                    here_it_is()
                yield function(item)


    @contextmanager
    def workers(count, *, engine):
        yield Slow()


    remember = Trials.remember


    def counted(trials, results):
        global kept
        if moment == "in a transaction" and kept == number:
            event.listen(trials._engine, "commit", lambda connection: here_it_is())
        remember(trials, results)
        kept += 1


    Trials.remember = counted
    trilemma.api.pool.workers = workers
    api.plan(scenario, overrides=changes, store=Path(store))
    """
)


class Counting:
    """Does the work here, and counts it."""

    def __init__(self):
        self.done = 0

    def map(self, function, items):
        for item in items:
            self.done += 1
            yield function(item)


def planned(monkeypatch, store):
    """(answer as plain values, pieces of work done) of the plan with this store."""
    counting = Counting()

    @contextmanager
    def workers(count, *, engine):
        yield counting

    monkeypatch.setattr("trilemma.api.pool.workers", workers)
    monkeypatch.setattr("trilemma.planner.keys.program_digest", lambda: "the same program")
    return api.plan(SMALL, overrides=CHANGES, store=store).to_dict(), counting.done


def killed_at(store, moment, number):
    """Plans in a child that is killed at a moment."""
    command = [sys.executable, "-c", CHILD, str(SMALL), str(store), moment, str(number), repr(CHANGES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "now\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("moment", "number"), [("in a trial", 0), ("in a trial", 4), ("in a transaction", 2), ("in a transaction", 5)]
)
def test_a_killed_plan_goes_on_where_it_was(tmp_path, monkeypatch, moment, number):
    whole, pieces = planned(monkeypatch, tmp_path / "whole.sqlite")
    path = tmp_path / "runs.sqlite"
    killed_at(path, moment, number)
    with Store.open(path) as store:
        assert store.sound()
        assert len(store.trials) == number
        assert [run.status for run in store.runs.all()] == [Status.INTERRUPTED]
    again, work = planned(monkeypatch, path)
    assert again == whole
    assert work == pieces - number  # the trial in flight is done again, no other
    assert planned(monkeypatch, path) == (whole, 0)
    with Store.open(path) as store:
        assert store.sound()
        assert [run.status for run in store.runs.all()] == [Status.COMPLETE]


WORKERS = textwrap.dedent(
    """
    import os, time
    from trilemma.api.pool import workers


    def slow(item):
        os.write(1, b"worker\\n")  # in one piece: two workers share the pipe
        time.sleep(600)


    if __name__ == "__main__":
        with workers(2) as executor:
            list(executor.map(slow, range(4)))
    """
)


@pytest.mark.skipif(os.name != "posix", reason="processes end otherwise there")
def test_workers_do_not_outlive_a_killed_plan(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(WORKERS)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as child:
        lines = [child.stdout.readline() for _ in range(2)]
        child.send_signal(signal.SIGKILL)
        assert lines == ["worker\n"] * 2
        assert child.stdout.read() == ""  # ends when nobody holds the pipe any more: the workers are gone
