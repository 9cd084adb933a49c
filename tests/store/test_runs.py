"""Runs: one a question, found by the first digits of their id, and as they ended."""

import subprocess
import sys

import pytest

from trilemma.errors import InputError
from trilemma.store import Status, Store
from trilemma.store.runs import Kept
from trilemma.store.tables import RUNS

KEYS = ["0123456789abcdef", "0123ffffffffffff", "fedcba9876543210"]
KEPT = Kept(document={"chosen": None, "price": 0.1}, printed="an answer ✓\n")


@pytest.fixture
def runs(tmp_path):
    with Store.open(tmp_path / "runs.sqlite") as store:
        yield store.runs


def begin(runs, key, name="chat"):
    return runs.begin(key, kind="plan", name=name, digest="cafe", program="0.1.0")


def test_a_run_ends_with_its_answer(runs):
    run = begin(runs, KEYS[0])
    assert run == "0123456789ab"
    assert runs.find(run).status is Status.RUNNING
    assert runs.answer(runs.find(run)) is None
    runs.end(run, Status.COMPLETE, summary={"usd_per_h": 1.5}, kept=KEPT)
    found = runs.find(run)
    assert (found.status, found.name, found.summary) == (Status.COMPLETE, "chat", {"usd_per_h": 1.5})
    assert found.created_at <= found.asked_at
    assert found.created_at.endswith("Z")
    assert runs.answer(found) == KEPT


def test_the_same_question_is_the_same_run(runs):
    run = begin(runs, KEYS[0])
    runs.end(run, Status.INTERRUPTED, summary={}, kept=KEPT)
    first = runs.find(run)
    assert begin(runs, KEYS[0]) == run
    assert len(runs.all()) == 1
    assert runs.find(run).created_at == first.created_at
    runs.end(run, Status.INTERRUPTED, summary={"lost": True}, kept=None)
    assert runs.answer(runs.find(run)) == KEPT
    assert runs.find(run).summary == {}


def test_a_run_that_is_asked_again_comes_first(runs):
    for key in KEYS:
        runs.end(begin(runs, key), Status.COMPLETE, summary={}, kept=KEPT)
    with runs._engine.begin() as connection:
        connection.execute(RUNS.update().values(asked_at="2026-01-01T00:00:00.000Z"))
    assert runs.asked_again(KEYS[2])
    assert [run.id for run in runs.all()] == [KEYS[2][:12], KEYS[0][:12], KEYS[1][:12]]
    assert not runs.asked_again("a" * 16)


def test_a_run_is_found_by_its_first_digits(runs):
    for key in KEYS:
        begin(runs, key)
    assert runs.find("FEDC").id == KEYS[2][:12]
    assert runs.find("01234").id == KEYS[0][:12]
    with pytest.raises(InputError, match=r"expected digits of one run alone, found '0123' \(.*0123456789ab"):
        runs.find("0123")


@pytest.mark.parametrize("word", ["fed", "fedcba98765x", "fdecba", "", "zzzz"])
def test_an_unknown_run_names_the_nearest(runs, word):
    with pytest.raises(InputError, match="nothing is kept yet"):
        runs.find(word)
    for key in KEYS:
        begin(runs, key)
    with pytest.raises(InputError, match="expected the id of a run, found .*fedcba987654"):
        runs.find(word)


def test_a_run_whose_process_is_gone_was_interrupted(runs):
    run = begin(runs, KEYS[0])
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    with runs._engine.begin() as connection:
        connection.execute(RUNS.update().values(process=int(gone.stdout)))
    assert runs.find(run).status is Status.INTERRUPTED


def test_removed_runs_are_gone_with_their_answers(runs):
    for key in KEYS[1:]:
        runs.end(begin(runs, key), Status.COMPLETE, summary={}, kept=KEPT)
    found = runs.find("fedc")
    runs.forget([found])
    assert [run.id for run in runs.all()] == [KEYS[1][:12]]
    assert runs.answer(found) is None
