"""Plans are kept: gone on from when stopped, answered at once when repeated, listed, shown, compared and removed."""

import csv
import io
import json
import os
import signal
from contextlib import contextmanager

import pytest

from tests.planner.questions import SMALL
from trilemma import api
from trilemma.cli.frame import run
from trilemma.errors import InfeasibleError, InputError

ONE = {"space.accelerators": ["h100_sxm"], "space.precisions": ["bf16"], "space.max_num_seqs": [64, 128, 256]}
IMPOSSIBLE = ONE | {"limits": ["ttft p99 <= 1 ms"]}


class Counting:
    """Does the work here, counts it, and says when a piece is about to be done."""

    def __init__(self):
        self.done = 0
        self.before = lambda done: None

    def map(self, function, items):
        for item in items:
            self.before(self.done)
            self.done += 1
            yield function(item)


@pytest.fixture
def work(monkeypatch):
    counting = Counting()

    @contextmanager
    def workers(count=None, *, engine="processes"):
        yield counting

    monkeypatch.setattr("trilemma.api.pool.workers", workers)
    return counting


@pytest.fixture
def store(tmp_path, monkeypatch):
    path = tmp_path / "store" / "runs.sqlite"
    monkeypatch.setenv("TRILEMMA_STORE", str(path))
    return path


def says(capfd, *arguments):
    """(exit code, stdout, stderr) of a command line."""
    capfd.readouterr()
    code = run([str(argument) for argument in arguments])
    return code, *capfd.readouterr()


def flags(changes):
    return [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def test_a_repeated_plan_is_answered_from_the_store(store, work):
    first = api.plan(SMALL, overrides=ONE)
    done = work.done
    assert done > 3
    again = api.plan(SMALL, overrides=ONE)
    assert work.done == done
    assert again.to_dict() == first.to_dict()
    assert again.answer.chosen.bill == first.answer.chosen.bill
    (row,) = api.list_runs()
    assert (row["name"], row["status"], row["chosen"]) == ("small", "complete", first.answer.chosen.label)


def test_the_store_changes_no_answer(store, work):
    kept = api.plan(SMALL, overrides=ONE).to_dict()
    assert api.plan(SMALL, overrides=ONE, keep=False).to_dict() == kept


def test_other_prices_need_no_new_simulation(store, work):
    first = api.plan(SMALL, overrides=ONE, limit_prices=False)
    done = work.done
    dearer = api.plan(SMALL, overrides=ONE | {"economics.electricity_usd_per_kwh": 0.5}, limit_prices=False)
    assert dearer.answer.chosen.usd_per_h > first.answer.chosen.usd_per_h
    assert work.done == done
    assert len(api.list_runs()) == 2


def test_nothing_is_kept_when_nobody_wants_it(store, work, monkeypatch, capfd):
    api.plan(SMALL, overrides=ONE, keep=False)
    assert says(capfd, "plan", SMALL, *flags(ONE), "--no-store", "-q", "-o", "json")[0] == 0
    monkeypatch.setenv("TRILEMMA_STORE", "off")
    api.plan(SMALL, overrides=ONE)
    assert not store.parent.exists()
    with pytest.raises(InputError, match="TRILEMMA_STORE: expected a file, found 'off'"):
        api.list_runs()


def test_a_usual_place_that_does_not_do_is_a_warning_and_a_named_one_an_error(work, tmp_path, monkeypatch):
    (tmp_path / "trilemma").write_text("no folder")
    monkeypatch.delenv("TRILEMMA_STORE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="nothing is kept: store .* expected a file that can be written"):
        assert api.plan(SMALL, overrides=ONE).answer.chosen is not None
    with pytest.raises(InputError, match="expected a file that can be written"):
        api.plan(SMALL, overrides=ONE, store=tmp_path / "trilemma" / "runs.sqlite")


@pytest.mark.parametrize("stop_at", [0, 4, 5])
def test_a_stopped_plan_gives_the_best_so_far_and_goes_on_later(store, work, tmp_path, stop_at):
    whole = api.plan(SMALL, overrides=ONE, store=tmp_path / "whole.sqlite")
    total, work.done = work.done, 0

    def progress(done, of, what):
        if work.done >= stop_at:
            raise api.Interrupted

    try:
        first = api.plan(SMALL, overrides=ONE, progress=progress)
    except api.Interrupted:
        first = None
    else:
        assert not first.answer.complete
        assert {p.label for p in first.answer.plans} < {p.label for p in whole.answer.plans}
    assert [row["status"] for row in api.list_runs()] == ["interrupted"]
    assert api.show_run(api.list_runs()[0]["id"])["document"] == (first.to_dict() if first else None)
    assert work.done < total
    report = api.plan(SMALL, overrides=ONE)
    assert report.to_dict() == whole.to_dict()
    assert work.done == total  # together: nothing was repeated
    assert [row["status"] for row in api.list_runs()] == ["complete"]


def test_ctrl_c_prints_the_best_so_far_and_exits_as_interrupted(store, work, capfd):
    work.before = lambda done: os.kill(os.getpid(), signal.SIGINT) if done == 5 else None
    code, out, err = says(capfd, "plan", SMALL, *flags(ONE))
    assert code == 130
    assert "Deploy" in out
    assert "INCOMPLETE" in out
    assert "stopping with the best so far; Ctrl-C again stops at once" in err
    assert err.endswith("interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    work.before = lambda done: None
    code, out, err = says(capfd, "plan", SMALL, *flags(ONE), "-q")
    assert (code, err) == (0, "")
    assert "INCOMPLETE" not in out


def test_ctrl_c_before_anything_was_found_says_just_that(store, work, capfd):
    work.before = lambda done: os.kill(os.getpid(), signal.SIGINT) if done == 0 else None
    code, out, err = says(capfd, "plan", SMALL, *flags(ONE), "-q")
    assert (code, out) == (130, "")
    assert err.endswith("interrupted\n")


def test_a_second_ctrl_c_stops_at_once(store, work, capfd):
    work.before = lambda done: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)] if done == 5 else None
    code, out, err = says(capfd, "plan", SMALL, *flags(ONE))
    assert (code, out, work.done) == (130, "", 5)
    assert err.endswith("interrupted\n")
    assert [row["status"] for row in api.list_runs()] == ["interrupted"]


def test_an_infeasible_question_is_remembered_too(store, work, capfd):
    with pytest.raises(InfeasibleError) as first:
        api.plan(SMALL, overrides=IMPOSSIBLE)
    done = work.done
    with pytest.raises(InfeasibleError) as again:
        api.plan(SMALL, overrides=IMPOSSIBLE)
    assert (str(again.value), work.done) == (str(first.value), done)
    (row,) = api.list_runs()
    assert (row["status"], row["chosen"]) == ("complete", None)
    assert api.show_run(row["id"])["printed"] == str(first.value)


def test_a_run_is_shown_as_the_plan_printed_it(store, work, capfd):
    for form in ("table", "json", "csv", "yaml"):
        code, printed, _ = says(capfd, "plan", SMALL, *flags(ONE), "-q", "-o", form)
        assert code == 0
        (row,) = api.list_runs()
        assert says(capfd, "runs", "show", row["id"][:6], "-o", form) == (0, printed, "")


def test_runs_are_listed_the_last_first(store, work, capfd):
    assert says(capfd, "runs", "list") == (0, "no runs yet\n", "")
    api.plan(SMALL, overrides=ONE | {"name": "first"})
    api.plan(SMALL, overrides=ONE | {"name": "second"})
    code, out, _ = says(capfd, "runs", "list")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["second", "first"]
    rows = json.loads(says(capfd, "runs", "list", "-o", "json")[1])
    assert [row["name"] for row in rows] == ["second", "first"]
    assert {row["status"] for row in csv.DictReader(io.StringIO(says(capfd, "runs", "list", "-o", "csv")[1]))} == {
        "complete"
    }


def test_a_comparison_holds_what_differs_and_nothing_else(store, work, capfd):
    first = api.plan(SMALL, overrides=ONE)
    second = api.plan(SMALL, overrides=ONE | {"economics.electricity_usd_per_kwh": 0.5, "limits": ["ttft p99 <= 2 s"]})
    ids = [row["id"] for row in reversed(api.list_runs())]
    found = api.compare_runs(*ids)
    assert [found[word]["id"] for word in ("first", "second")] == ids
    assert {row["key"] for row in found["question"]} == {"economics.electricity_usd_per_kwh", "limits"}
    assert found["versions"] == []
    total = next(row for row in found["bill"] if row["key"] == "total")
    change = second.answer.chosen.usd_per_h - first.answer.chosen.usd_per_h
    assert (total["first"], total["change"]) == (first.answer.chosen.usd_per_h, change)
    assert {row["key"] for row in found["limits"]} == {"ttft p99 <= 1 s", "itl p99 <= 40 ms", "ttft p99 <= 2 s"}
    code, out, _ = says(capfd, "runs", "compare", *ids)
    assert code == 0
    assert "Versions: the same" in out
    assert "economics.electricity_usd_per_kwh" in out
    assert json.loads(says(capfd, "runs", "compare", *ids, "-o", "json")[1]) == found
    assert all(rows == [] for name, rows in api.compare_runs(ids[0], ids[0]).items() if isinstance(rows, list))


def test_runs_are_removed_without_a_question(store, work, capfd):
    api.plan(SMALL, overrides=ONE | {"name": "first"})
    api.plan(SMALL, overrides=ONE | {"name": "second"})
    second, first = api.list_runs()
    code, out, err = says(capfd, "runs", "rm", first["id"], "0000nosuch")
    assert (code, out) == (2, "")
    assert "expected the id of a run, found '0000nosuch'" in err
    assert says(capfd, "runs", "rm", first["id"]) == (0, f"removed {first['id']} first\n", "")
    assert [row["id"] for row in api.list_runs()] == [second["id"]]
    done = work.done
    api.plan(SMALL, overrides=ONE | {"name": "first"})  # removed, but what it is made of is still there
    assert work.done == done
    assert says(capfd, "runs", "rm", "--all")[0] == 0
    assert api.list_runs() == []
    api.plan(SMALL, overrides=ONE)
    assert work.done > done


@pytest.mark.parametrize("words", [[], ["--all", "0123"]])
def test_removing_needs_to_know_what(store, capfd, words):
    assert says(capfd, "runs", "rm", *words)[0] == 2


def test_an_unknown_run_names_those_that_are_near(store, work, capfd):
    api.plan(SMALL, overrides=ONE)
    name = api.list_runs()[0]["id"]
    code, out, err = says(capfd, "runs", "show", name[:-1] + "x")
    assert (code, out) == (2, "")
    assert err == f"error: run: expected the id of a run, found '{name[:-1]}x' (nearest: {name})\n"


def test_the_place_can_be_named_by_a_flag(store, work, tmp_path, capfd):
    other = tmp_path / "other.sqlite"
    assert says(capfd, "plan", SMALL, *flags(ONE), "-q", "--store", other)[0] == 0
    assert [row["name"] for row in api.list_runs(store=other)] == ["small"]
    assert "small" in says(capfd, "runs", "list", "--store", other)[1]
    assert says(capfd, "runs", "list") == (0, "no runs yet\n", "")


def test_an_unknown_engine_of_work_is_refused(store, capfd):
    code, _, err = says(capfd, "plan", SMALL, *flags(ONE), "--engine", "vllm")
    assert code == 2
    assert "error: --engine: expected one of processes, ray, found 'vllm'" in err
