"""The README holds what it promises: a real output that adds up, commands that exist, files to read."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from trilemma import errors
from trilemma.cli.frame import app
from trilemma.metrics.limits import parse_limit

ROOT = Path(__file__).parents[2]
SCENARIO = yaml.safe_load((ROOT / "examples" / "chat-70b.yaml").read_text(encoding="utf-8"))
TYPED = "What the demo prints"
ROUNDING = 0.005


def section(readme, title):
    return readme.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows_of(text, heading):
    """The numbers of each row of a printed table, by the row's first word, and the columns' names."""
    lines = next(p for p in text.split("\n\n") if p.startswith(heading)).splitlines()
    names = lines[1].split()
    numbers = {}
    for line in lines[3:]:
        cells = line.split()
        if len(cells) == len(names) and all(re.fullmatch(r"-?[\d,.]+", cell) for cell in cells[1:]):
            numbers[cells[0]] = [float(cell.replace(",", "")) for cell in cells[1:]]
    return names, numbers


def test_headline_names_model_limits_and_size(demo):
    headline = demo.split("\n\nLimits", 1)[0]
    assert headline.startswith(f"{SCENARIO['name']}: {SCENARIO['model']}, {SCENARIO['workload']['trace']}")
    assert re.search(r"Deploy \d+ x .+ TP\d+", headline)
    for text in SCENARIO["limits"]:
        assert re.search(rf"^{re.escape(parse_limit(text, where='').text)} .*yes$", demo, re.MULTILINE), text


def test_the_bill_adds_up_in_rows_and_columns(demo):
    names, rows = rows_of(demo, "Bill")
    assert names == ["$/h", "useful", "waste", "headroom", "idle", "stranded", "total"]
    assert list(rows) == ["capital", "operational", "engineering", "total"]
    for row in rows.values():
        assert row[-1] == pytest.approx(sum(row[:-1]), abs=6 * ROUNDING)
    for column in zip(*rows.values(), strict=True):
        assert column[-1] == pytest.approx(sum(column[:-1]), abs=4 * ROUNDING)
    paid = float(re.search(r"\$([\d,.]+)/h,", demo)[1].replace(",", ""))
    assert rows["total"][-1] == pytest.approx(paid, abs=2 * ROUNDING)


def test_the_frontier_begins_with_what_is_deployed(demo):
    frontier = next(p for p in demo.split("\n\n") if p.startswith("Frontier")).splitlines()
    replicas, tensor = re.search(r"Deploy (\d+) x .+ TP(\d+),", demo).groups()
    assert re.match(rf"{replicas} x \S+ TP{tensor} ", frontier[3])


def test_the_launch_command_is_there(demo):
    assert f"vllm serve {SCENARIO['model']}" in demo or "vllm serve ./" in demo


def test_every_command_is_in_the_table(readme):
    listed = re.findall(r"^\| `(\w+)[^`]*` \|", section(readme, "Commands"), re.MULTILINE)
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)


def test_the_exit_codes_are_those_of_the_program(readme):
    line = section(readme, "Commands").split("Exit codes: ", 1)[1].split(".", 1)[0]
    said = {int(code): what for code, what in re.findall(r"(\d+) ([^,]+)", line)}
    codes = {errors.InputError: "bad input", errors.InfeasibleError: "infeasible"}
    codes |= {errors.CheckFailedError: "failed", errors.UnsupportedError: "unsupported"}
    assert {kind.exit_code for kind in codes} | {0} == set(said)
    for kind, word in codes.items():
        assert word in said[kind.exit_code]


def test_the_reading_order_is_of_five_files_that_exist(readme):
    files = re.findall(r"^\d\. \[`[^`]+`\]\(([^)]+)\)", section(readme, "Reading the code"), re.MULTILINE)
    assert len(files) == 5
    for file in files:
        assert (ROOT / file).is_file(), file


def test_ten_lines_to_plan_your_own(readme):
    assert re.findall(r"^(\d+)\. ", section(readme, "How to plan your own"), re.MULTILINE) == [*map(str, range(1, 11))]


def test_the_accuracy_table_is_that_of_the_accuracy_page(readme, refresh):
    shown = readme.split("<!-- output of: accuracy -->\n", 1)[1].split("<!-- end of output -->", 1)[0]
    assert shown == refresh.accuracy() + "\n", "run python benchmarks/refresh_readme.py"
