"""The flags of `trilemma plan` that explain: what they print, in every form, and what they refuse."""

import csv
import io
import json

import pytest
from tests.planner.questions import SMALL

from trilemma.cli.frame import run


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr("trilemma.api.pool.cores", lambda: 1)


def printed(capsys, *more):
    code = run(["plan", str(SMALL), "-q", "--no-store", *more])
    out, err = capsys.readouterr()
    return code, out, err


def test_why_not_in_words_rows_and_data(capsys):
    code, text, _ = printed(capsys, "--why-not", "l40s,tp1", "--no-limit-prices")
    assert code == 0
    assert "\nWhy not l40s, tp1\n" in text
    _, rows, _ = printed(capsys, "--why-not", "l40s,tp1", "--no-limit-prices", "-o", "csv")
    table = list(csv.DictReader(io.StringIO(rows)))
    _, document, _ = printed(capsys, "--why-not", "l40s,tp1", "--no-limit-prices", "-o", "json")
    reasons = json.loads(document)["why_not"]["reasons"]
    assert [row["label"] for row in table] == [reason["label"] for reason in reasons]
    assert all(row["label"] in text for row in table)


def test_levers_in_words_and_rows(capsys):
    code, text, _ = printed(capsys, "--levers", "--no-limit-prices")
    assert code == 0
    assert "Levers: one change at a time to " in text
    _, rows, _ = printed(capsys, "--levers", "--no-limit-prices", "-o", "csv")
    table = list(csv.DictReader(io.StringIO(rows)))
    assert {"weights", "KV cache", "max_num_batched_tokens"} <= {row["lever"] for row in table}


def test_limit_prices_are_part_of_a_plan_unless_left_out(capsys):
    assert "\nWhat each limit costs\n" in printed(capsys)[1]
    assert "What each limit costs" not in printed(capsys, "--no-limit-prices")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("h10", "did you mean 'h100'?"),
        ("", "error: --why-not: expected words such as h200,tp4, found ''"),
        (" , ", "error: --why-not: expected words such as h200,tp4"),
        ("tp3", "found 'tp3'"),
    ],
)
def test_words_that_name_nothing_end_with_two_before_anything_is_searched(capsys, monkeypatch, words, said):
    def searched(*_args, **_kwargs):
        raise AssertionError("searched")

    monkeypatch.setattr("trilemma.planner.plan.look", searched)
    code, out, err = printed(capsys, "--why-not", words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_an_objective_without_its_budget_ends_with_two(capsys):
    code, out, err = printed(capsys, "--set", "objective=goodput")
    assert (code, out) == (2, "")
    assert "budget" in err
    assert "Traceback" not in err
