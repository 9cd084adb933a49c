"""`cost --measured`: a file of requests priced; the simulation's own file gives the simulation's own bill."""

import csv

import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, MEAN, SMALL
from trilemma import api
from trilemma.api.run_file import read_run
from trilemma.errors import InputError, UnsupportedError

H100 = {"accelerator": "h100_sxm", "precision": "bf16", "tensor": 1}
TWO = H100 | {"replicas": 2}
HEADER = "arrival_s,ttft_s,e2e_s,prompt_tokens,output_tokens"
ROWS = [f"{i / 10},0.1,0.7,500,{21 + i % 3}" for i in range(40)]


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Simulates small.yaml on two H100s and writes its requests; (path, once for each change and ending)."""
    folder, known = tmp_path_factory.mktemp("runs"), {}

    def write(changes=None, ending="csv", deployment=TWO):
        key = repr((changes, ending, deployment))
        if key not in known:
            known[key] = folder / f"run{len(known)}.{ending}"
            files = api.RunFiles(requests=known[key])
            api.simulate(SMALL, deployment=deployment, files=files, overrides=changes)
        return known[key]

    return write


def table(tmp_path, *rows, header=HEADER, name="run.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def priced(path, deployment=TWO, **more):
    return api.cost(SMALL, deployment=deployment, measured=path, offer=more.pop("offer", "owned"), **more)


CHANGES = {"steady": {}, "day": DAY, "mean day": MEAN, "batch": BATCH}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("offer", ["owned", "on-demand"])
def test_the_simulations_own_requests_give_the_simulations_own_bill(written, changes, offer):
    simulated = api.cost(SMALL, deployment=TWO, offer=offer, overrides=changes)
    measured = priced(written(changes), offer=offer, overrides=changes)
    assert (simulated["priced"]["what"], measured["priced"]["what"]) == ("simulation", "measured run")
    assert measured["total_usd_per_h"] == pytest.approx(simulated["total_usd_per_h"], rel=1e-4)
    assert measured["use_view"] == pytest.approx(simulated["use_view"], rel=1e-3, abs=1e-3)
    assert measured["usd_per_mtok_output"] == pytest.approx(simulated["usd_per_mtok_output"], rel=1e-3)
    for kind in ("input", "output"):
        by_gpu_time = measured["usd_per_mtok_by_gpu_time"][kind], simulated["usd_per_mtok_by_gpu_time"][kind]
        assert by_gpu_time[0] == pytest.approx(by_gpu_time[1], rel=0.01)  # the quietest hour is another sample


def test_clients_in_a_closed_loop_are_close(written):
    simulated = api.cost(SMALL, deployment=TWO, offer="owned", overrides=CLOSED)
    measured = priced(written(CLOSED), overrides=CLOSED)
    assert measured["total_usd_per_h"] == pytest.approx(simulated["total_usd_per_h"], rel=0.01)
    assert measured["usd_per_mtok_output"] == pytest.approx(simulated["usd_per_mtok_output"], rel=0.05)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_every_form_of_the_file_is_read_alike(written, ending):
    assert priced(written({}, ending))["use_view"] == priced(written({}))["use_view"]


def test_replicas_are_those_of_the_file_unless_flags_say_more(written):
    document = priced(written({}), deployment=H100)
    assert document["deployment"]["replicas"] == 2
    assert "2 replicas: as many as the file names" in document["notes"]
    assert priced(written({}), deployment=H100 | {"replicas": 3})["deployment"]["replicas"] == 3


def test_late_tokens_are_waste_and_failed_requests_too(tmp_path):
    path = table(tmp_path, *ROWS)
    good = priced(path, deployment=H100)
    assert good["use_view"]["waste"] == 0
    late = priced(table(tmp_path, *ROWS[:20], *(row.replace("0.1,0.7", "1.05,1.4") for row in ROWS[20:])), H100)
    assert late["use_view"]["waste"] > 0
    assert late["usd_per_mtok_output"] == pytest.approx(2 * good["usd_per_mtok_output"], rel=0.05)
    rows = [f"{row},finished" for row in ROWS[:20]] + [f"{row},failed" for row in ROWS[20:]]
    failed = priced(table(tmp_path, *rows, header=f"{HEADER},status"), H100)
    assert failed["use_view"]["waste"] == pytest.approx(late["use_view"]["waste"], rel=0.05)
    assert "20 of 40 requests finished" in failed["priced"]["sentence"]


def test_cached_prompt_tokens_cost_less_gpu_time(tmp_path):
    rows = [f"{row},{hits}" for row, hits in zip(ROWS, [0, 400] * 20, strict=True)]
    cold = priced(table(tmp_path, *ROWS), H100)
    warm = priced(table(tmp_path, *rows, header=f"{HEADER},hit_tokens"), H100)
    usd = warm["usd_per_mtok_by_gpu_time"]
    assert 0 < usd["cached"] < usd["input"]
    assert cold["usd_per_mtok_by_gpu_time"]["cached"] is None


def test_limits_are_judged_by_what_was_measured(tmp_path):
    document = priced(table(tmp_path, *ROWS), H100)
    ttft, itl = document["limits"]
    assert (ttft["value"], ttft["value_at_confidence"], ttft["met"]) == (pytest.approx(0.1), ttft["value"], True)
    assert (itl["value"], itl["met"]) == (None, False)  # single gaps are not in the file


def test_what_a_run_says_may_come_in_any_order_and_from_any_clock(tmp_path):
    shifted = [f"{1.7e9 + float(row.split(',')[0])},{row.split(',', 1)[1]}" for row in reversed(ROWS)]
    run, plain = (read_run(table(tmp_path, *rows, name=name)) for rows, name in ((shifted, "a.csv"), (ROWS, "b.csv")))
    assert run.timings.arrival_s == pytest.approx(plain.timings.arrival_s, abs=1e-6)
    assert run.timings.output_tokens.tolist() == plain.timings.output_tokens.tolist()
    assert run.replicas is None


MISTAKES = {
    "milliseconds by name": (
        [HEADER.replace("ttft_s", "ttft_ms"), *ROWS], "column ttft_ms: expected seconds in a column ttft_s, found ms",
    ),
    "milliseconds by value": (
        [HEADER, *(row.replace("0.1,0.7", "100,310000") for row in ROWS)], "column e2e_s: expected seconds, found",
    ),
    "two units": (
        [f"{HEADER},tpot_s", *(f"{row},50" for row in ROWS)], "column tpot_s: expected (e2e_s - ttft_s) / (output",
    ),
    "a column short": ([HEADER.replace(",e2e_s", ""), *(r.replace(",0.7", "") for r in ROWS)], "found no e2e_s"),
    "another name": ([HEADER.replace("e2e_s", "e2e"), *ROWS], "found no e2e_s (did you mean 'e2e'?)"),
    "a word": ([HEADER, *ROWS, "9,soon,1,5,5"], "column ttft_s, row 41: expected a number, found 'soon'"),
    "a negative time": ([HEADER, *ROWS, "9,-1,1,5,5"], "column ttft_s, row 41: expected a finite number of at least 0"),
    "no arrival": ([HEADER, *ROWS, ",0.1,1,5,5"], "column arrival_s, row 41: expected a number, found none"),
    "half a token": ([HEADER, *ROWS, "9,0.1,1,5,5.5"], "column output_tokens, row 41: expected a whole number"),
    "no token": ([HEADER, *ROWS, "9,0.1,1,0,5"], "column prompt_tokens, row 41: expected a whole number of at least 1"),
    "an end before its begin": ([HEADER, *ROWS, "9,2,1,5,5"], "column ttft_s, row 41: expected at most e2e_s"),
    "too few cells": ([HEADER, *ROWS, "9,2,1"], "run.csv:42: expected 5 columns, found 3"),
    "a header alone": ([HEADER], "expected at least one request, found none"),
    "nothing": ([""], "expected a header of columns, found an empty file"),
    "nobody finished": ([HEADER, "0,,,5,5"], "column e2e_s: expected at least one request that finished"),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_named_with_file_and_column(tmp_path, lines, said):
    path = table(tmp_path, *lines[1:], header=lines[0])
    with pytest.raises(InputError) as raised:
        priced(path)
    assert str(raised.value).startswith(f"--measured {path}")
    assert said in str(raised.value)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for name, said in {
        "gone.csv": "expected a file of requests, found no such file",
        "run.txt": "expected a file ending in .csv, .parquet or .arrow",
        "broken.parquet": "expected a whole parquet file",
    }.items():
        with pytest.raises(InputError) as raised:
            priced(tmp_path / name)
        assert said in str(raised.value)


def test_the_deployment_has_to_be_named(tmp_path):
    with pytest.raises(InputError, match="--measured: expected the measured deployment in flags beside it"):
        priced(table(tmp_path, *ROWS), deployment={})
    with pytest.raises(UnsupportedError, match="heads do not divide"):
        priced(table(tmp_path, *ROWS), deployment=H100 | {"tensor": 3})


def test_a_measured_run_is_compared_under_several_offers(written):
    document = api.compare(SMALL, offers="own,reserved-1y,on-demand", deployment=TWO, measured=written({}))
    assert document["priced"]["what"] == "measured run"
    owned = next(one for one in document["offers"] if one["kind"] == "owned")
    assert owned["total_usd_per_h"] == priced(written({}))["total_usd_per_h"]


def test_the_file_is_written_as_it_is_read(written):
    run = read_run(written({}))
    with written({}).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(run.timings) == len(rows)
    assert run.timings.ttft_s[0] == pytest.approx(float(rows[0]["ttft_s"]))
    assert run.span_s == pytest.approx(max(float(row["arrival_s"]) + float(row["e2e_s"]) for row in rows), abs=1e-6)
