"""The page for whoever signs: its sums run, its printed comparison adds up, and no sum is told twice."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cost.md"
GUIDE = ROOT / "docs" / "guide" / "cost.md"
COMMAND = "trilemma cost examples/chat-70b.yaml --compare own,reserved-1y,on-demand,spot,api"
ROUNDING = 0.005


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed(page):
    return page.split(f"<!-- output of: {COMMAND} -->\n```text\n", 1)[1].split("```\n<!-- end of output -->", 1)[0]


def test_the_sums_of_the_page_are_right():
    results = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 50
    assert results.failed == 0


@pytest.mark.parametrize(
    "number",
    ["$1.58", "$1.36", "$87,072", "$106,752", "$19,680", "18.4%", "$0.52", "$0.64", "$10,494", "36%", "59%", "16.7%"],
)
def test_each_published_number_is_on_the_page(page, number):
    assert number in page


@pytest.mark.parametrize("number", ["1.36", "106,752", "19,680", "10,494", "36%", "15.3%"])
def test_the_reference_does_not_tell_it_again(number):
    assert number not in GUIDE.read_text(encoding="utf-8")


def table_of(text, heading):
    """Header and rows of the printed tables under a heading, cells by two spaces; a wide one stands in parts."""
    after = text.split(f"\n\n{heading}", 1)[1]
    lines = after.split("\n\n", 1)[0].splitlines()
    start = next(i for i, line in enumerate(lines) if set(line) <= set("- ") and "--" in line)
    cells = [re.split(r"\s{2,}", line.strip()) for line in (lines[start - 1], *lines[start + 1 :])]
    return cells[0], [row for row in cells[1:] if len(row) == len(cells[0])]


def number(text):
    return float(text.replace(",", "").removesuffix("%").removeprefix("<"))


def test_each_offer_of_the_printed_answer_adds_up(printed):
    header, rows = table_of(printed, "Offers in $/h")
    assert header[:2] == ["offer", "$/h"]
    assert len(rows) == 5
    shares = []
    for row in rows:
        one = dict(zip(header, row, strict=True))
        parts = sum(number(one[name]) for name in ("capital", "operational", "engineering"))
        assert parts == pytest.approx(number(one["$/h"]), abs=4 * ROUNDING)
        low, high = map(number, one["8 of 10"].split("-"))
        assert low < high
        shares.append(number(one["cheapest"]))
    assert sum(shares) == pytest.approx(100, abs=3)
    assert [number(row[1]) for row in rows] == sorted(number(row[1]) for row in rows)


def test_the_printed_bill_adds_up_both_ways(printed):
    header, rows = table_of(printed, "Bill of")
    assert header == ["$/h", "useful", "waste", "headroom", "idle", "stranded", "total"]
    amounts = [[number(cell) for cell in row[1:]] for row in rows]
    assert [row[0] for row in rows] == ["capital", "operational", "engineering", "total"]
    for row in amounts:
        assert row[-1] == pytest.approx(sum(row[:-1]), abs=6 * ROUNDING)
    for column in zip(*amounts, strict=True):
        assert column[-1] == pytest.approx(sum(column[:-1]), abs=4 * ROUNDING)


def test_the_printed_answer_is_whole(printed):
    for heading in ("Offers", "Bill of", "Break-even", "What moves", "$ per million output tokens", "The day", "Notes"):
        assert f"\n\n{heading}" in printed
    assert "in 8 of 10 draws" in printed.split("\n\n", 1)[0].replace("\n", " ")
    assert max(map(len, printed.splitlines())) <= 120
