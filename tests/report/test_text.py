"""A plan in words: the numbers of the document, every section that has something to say, nothing undefined."""

import re
from functools import cache

import pytest

from tests.planner.questions import SMALL, WORKLOADS, answer, question, together
from tests.report.test_schema import report_of
from trilemma import api
from trilemma.report import plan_text
from trilemma.report.table import aligned

SECTIONS = ("Limits", "Bill", "Why", "Frontier", "Why not", "Launch", "Notes")
THREE_ACCELERATORS = {"space.accelerators": ["h100_sxm", "l40s", "l4"]}


@cache
def report(name):
    return api.plan(SMALL, overrides=together(WORKLOADS[name], THREE_ACCELERATORS), processes=1)


def sections(text):
    """Headline and sections by their first words."""
    first, *rest = re.split(r"\n\n(?=[A-Z])", text)
    return {"": first} | {part.split("\n")[0].split(" (")[0]: part for part in rest}


@pytest.mark.parametrize("name", WORKLOADS)
def test_nothing_undefined_is_shown(name):
    text = plan_text(report(name))
    assert not re.search(r"\b(nan|inf|None|True|False)\b", text)
    assert text.endswith("\n")
    assert not re.search(r"[ \t]+\n", text)
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_headline_says_what_to_deploy_and_what_it_costs(name):
    asked, chosen = report(name), report(name).answer.chosen
    text = plan_text(asked)
    d, bill = chosen.trial.deployment, chosen.bill
    assert text.startswith(f"small: Qwen/Qwen3-8B, {asked.question.workload.label}: ")
    assert f"Deploy {d.replicas} x {d.accelerator.title} TP{d.parallelism.tensor}, {d.precision.name} weights" in text
    assert f"{d.gpus} GPUs in use, " in text
    assert f"${bill.total_usd_per_h:,.2f}/h, " in text
    assert f"${bill.usd_per_mtok_output:,.2f} per million output tokens inside the limits" in text
    counts = asked.answer.counts
    assert f"cheapest of {counts.candidates} candidates ({counts.shapes} deployments at their offers)" in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_section_has_its_numbers(name):
    asked, chosen = report(name), report(name).answer.chosen
    parts = sections(plan_text(asked))
    assert [key for key in parts if key in SECTIONS] == [key for key in SECTIONS if key in parts]
    for limit in asked.question.limits:
        (line,) = [x for x in parts["Limits"].splitlines() if x.startswith(limit.text)]
        assert line.endswith("yes")
    bill = chosen.bill
    total = parts["Bill"].splitlines()[6].split()
    assert total == ["total", *(f"{usd:.2f}" for usd in bill.use_view.values()), f"{bill.total_usd_per_h:.2f}"]
    assert chosen.trial.binds in parts["Why"]
    assert f"(all {len(asked.answer.rejected)} rejections with their reasons in -o json: " in parts["Why not"]
    assert "vllm serve Qwen/Qwen3-8B" in parts["Launch"]
    assert f"catalogue {asked.catalogue_digest[:12]}, prices as of 2026-11-01, seed 0" in parts["Notes"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_accelerator_is_chosen_or_has_its_why_not(name):
    asked = report(name)
    shown = sections(plan_text(asked))["Why not"]
    chosen = asked.answer.chosen.trial.deployment.accelerator.name
    for accelerator in asked.question.space.accelerators:
        assert accelerator.name == chosen or f"\n{accelerator.name} " in shown


def test_each_note_is_said_once():
    notes = sections(plan_text(report("day")))["Notes"].splitlines()[1:]
    assert len(notes) == len(set(notes))
    assert all(note.startswith("- ") for note in notes)


def test_without_limits_there_is_no_section_of_limits():
    free = api.plan(SMALL, overrides={"limits": []}, processes=1)
    parts = sections(plan_text(free))
    assert "Limits" not in parts
    assert "saturation" in parts["Why"]


def test_an_answer_without_a_plan_says_so():
    hard = {"limits": ["ttft p99 <= 30 ms", "itl p99 <= 40 ms"]}
    assert plan_text(report_of(answer(hard), question(hard))) == "small: nothing meets the limits\n"


def test_tables_line_up():
    lines = aligned(["a", "number"], [["x", "1"], ["long word", "1,000"]], right=[False, True]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0] == "a          number"
    assert aligned(["only", "header"], []) == "only  header\n----  ------"
