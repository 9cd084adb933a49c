"""The answer's schema: the published file is the present one, real answers pass it, and it lets nothing else pass."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from tests.planner.questions import DAY, SMALL, WORKLOADS, answer, question, together
from trilemma import api
from trilemma.report.document import PlanReport
from trilemma.report.schema import answer_schema, schema_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema():
    jsonschema.Draft202012Validator.check_schema(answer_schema())
    return jsonschema.Draft202012Validator(answer_schema())


@cache
def document(name):
    report = api.plan(SMALL, overrides=together(WORKLOADS[name]), processes=1)
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


def report_of(answered, asked):
    """A report around an answer that never came through the API."""
    texts = {"launch": "", "launch_summary": "", "version": "0", "catalogue_digest": "0" * 64}
    return PlanReport(answer=answered, question=asked, scenario={}, **texts)


def test_the_published_schema_is_the_present_one():
    published = (ROOT / "docs" / "answer.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run: python -m trilemma.report.schema > docs/answer.schema.json"


@pytest.mark.parametrize("name", WORKLOADS)
def test_answers_pass(schema, name):
    schema.validate(document(name))


def test_an_answer_without_a_plan_passes(schema):
    hard = {"limits": ["ttft p99 <= 30 ms", "itl p99 <= 40 ms"]}
    plain = json.loads(json.dumps(report_of(answer(hard), question(hard)).to_dict(), allow_nan=False))
    schema.validate(plain)
    assert plain["chosen"] is plain["bill"] is plain["use_view"] is None
    assert plain["plans"] == plain["frontier"] == []
    assert plain["rejected"]
    assert all(r["miss"]["excess"] > 0 for r in plain["rejected"] if r["stage"] == "limits")


def test_what_does_not_exist_is_null_and_not_infinite(schema):
    """A request that is never answered has no latency: JSON knows no infinity."""
    answered = answer({})
    chosen = answered.chosen
    never = dict(chosen.trial.summary.values) | {"ttft_p99_s": float("inf"), "itl_p99_s": None}
    trial = replace(chosen.trial, summary=replace(chosen.trial.summary, values=never))
    answered = replace(answered, chosen=replace(chosen, trial=trial), frontier=(), plans=(), rejected=())
    plain = report_of(answered, question()).to_dict()
    shown = json.loads(json.dumps(plain, allow_nan=False))["chosen"]
    assert shown["latencies"]["ttft_p99_s"] is shown["latencies"]["itl_p99_s"] is None
    assert [limit["value"] for limit in shown["limits"]] == [None, None]
    assert [limit["met"] for limit in shown["limits"]] == [False, False]


def places(value, path=()):
    """Every mapping inside a document that the schema closes, by path."""
    if isinstance(value, dict):
        yield path
        for key, child in value.items():
            if key != "scenario":
                yield from places(child, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def inside(document, path):
    for key in path:
        document = document[key]
    return document


@pytest.mark.parametrize("name", ["day", "batch"])
def test_nothing_is_optional_and_nothing_else_is_allowed(schema, name):
    whole = document(name)
    for path in places(whole):
        changed = deepcopy(whole)
        inside(changed, path)["surprise"] = 1
        assert not schema.is_valid(changed), path
        if path != ("chosen", "latencies"):  # holds whatever the limits ask for
            for key in inside(whole, path):
                changed = deepcopy(whole)
                del inside(changed, path)[key]
                assert not schema.is_valid(changed), (*path, key)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("bill", "total_usd_per_h"), -1.0),
        (("bill", "total_usd_per_h"), None),
        (("bill", "use_view", "idle"), "0"),
        (("chosen", "gpus"), 0),
        (("chosen", "source"), "hearsay"),
        (("rejected", 0, "stage"), "taste"),
        (("versions", "catalogue_sha256"), "abc"),
        (("workload", "kind", "name"), "slow"),
    ],
)
def test_values_have_their_kind(schema, path, value):
    changed = deepcopy(document("day"))
    inside(changed, path[:-1])[path[-1]] = value
    assert not schema.is_valid(changed)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_answer_holds_the_bill_in_both_views(name):
    whole = document(name)
    bill = whole["bill"]
    total = bill["total_usd_per_h"]
    assert list(whole["use_view"]) == ["useful", "waste", "headroom", "idle", "stranded"]
    assert sum(whole["use_view"].values()) == pytest.approx(total, abs=0.005)
    assert whole["use_view"] == bill["use_view"]
    assert whole["usd_per_mtok_output"] == bill["usd_per_mtok_output"] == whole["chosen"]["usd_per_mtok_output"]
    cash = sum(bill[f"{name}_usd_per_h"] for name in ("capital", "operational", "engineering"))
    assert cash == pytest.approx(total, abs=0.005)
    for use, usd in bill["use_view"].items():
        assert sum(row[use] for row in bill["matrix"].values()) == pytest.approx(usd, abs=1e-6)
    assert whole["chosen"]["usd_per_h"] == total
    wasted = sum(bill["matrix"][d][u] for d in ("capital", "operational") for u in bill["use_view"] if u != "useful")
    assert bill["opportunity_usd_per_h"] == pytest.approx(wasted, abs=1e-6)


@pytest.mark.parametrize("name", WORKLOADS)
def test_rows_and_whole_plan_agree(name):
    whole = document(name)
    first, chosen = whole["plans"][0], whole["chosen"]
    shared = {key for key in first if key in chosen}
    assert len(shared) > 12
    assert {key: first[key] for key in shared} == {key: chosen[key] for key in shared}
    assert first["ttft_p99_s"] == chosen["latencies"]["ttft_p99_s"]
    assert {row["label"] for row in whole["frontier"]} <= {row["label"] for row in whole["plans"]}
    dearer = {r["label"] for r in whole["rejected"] if r["stage"] == "cost"}
    assert {row["label"] for row in whole["plans"][1:]} <= dearer


def test_a_days_schedule_is_told_hour_by_hour():
    schedule = document("day")["chosen"]["schedule"]
    assert len(schedule["load_requests_per_s"]) == len(schedule["asked_replicas"]) == 24
    assert max(schedule["asked_replicas"]) == document("day")["chosen"]["replicas"]
    multipliers = DAY["workload.profile"]["multipliers"]
    assert schedule["load_requests_per_s"].index(max(schedule["load_requests_per_s"])) == multipliers.index(10)
