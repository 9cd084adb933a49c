"""A user's mistakes at the command line: exit 2, one line that says what to mend, nothing on stdout, no file."""

import pytest

SCENARIO = "version: 1\nmodel: Qwen/Qwen3-32B\nworkload:\n  trace: azure_2023_conv\n"


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (SCENARIO + "space: {max_gpu: 8}\n", (), "chat.yaml:5: space.max_gpu: expected a known key, found the unknown"),
        (SCENARIO + "  window: {start: 500}\n", (), "(the unit is missing)"),
        (SCENARIO, ("--set", "limits=[ttft p99 <= 500]"), "--set limits: limits[0]: expected a time with a unit"),
        (SCENARIO, ("--set", "limits=[ttft p100 <= 1 s]"), "expected a statistic: 'mean' or a percentile above p0"),
        (SCENARIO, ("--set", "economics.electricity_usd_per_kwh=-1"), "expected a number of at least 0, found -1"),
        (SCENARIO, ("--set", "economics.electricity_usd_per_kwh=.nan"), "expected a finite number, found nan"),
        (SCENARIO, ("--set", "seed"), "--set: expected KEY=VALUE, found 'seed'"),
        (SCENARIO, ("--set", "seed=1", "--set", "seed=2"), "--set: expected each key once, found 'seed' again"),
        (SCENARIO, ("--set", "workload.trace=nowhere.csv"), "--set workload.trace: expected a trace file or a shipped"),
        (SCENARIO, ("--set", "model=meta-llama/Meta-Llama-3.1-71B"), "nearest: meta-llama/Meta-Llama-3.1-70B"),
        (SCENARIO.replace("Qwen3-32B", "Qwen3-33B"), (), "chat.yaml:2: model: expected the name of a model in the "),
        (SCENARIO, ("--set", "model=./nowhere"), "--set model: expected an existing file"),
        ("version: [", (), "chat.yaml:1:"),
        ("", (), "found an empty file"),
        (None, (), "chat.yaml: expected a scenario file, found no file of that name"),
    ],
)
def test_mistakes_in_a_scenario(trilemma_says, api, tmp_path, text, flags, said):
    path, out_path = tmp_path / "chat.yaml", tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    code, out, err = trilemma_says("plan", path, *flags, "--output-file", out_path)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if text is None else ["chat.yaml"])


def test_500_msec_is_a_time(trilemma_says, api, tmp_path):
    path = tmp_path / "chat.yaml"
    path.write_text(SCENARIO)
    assert trilemma_says("plan", path, "--set", "limits=[ttft p99 <= 500 msec]")[0] == 0
    assert api.scenario.parsed_limits[0].bound == 0.5


@pytest.mark.parametrize("price", ["-1.0", "nan", "inf"])
def test_prices_that_are_none(trilemma_says, api, tmp_path, price):
    path, rows = tmp_path / "chat.yaml", tmp_path / "rows.toml"
    path.write_text(SCENARIO)
    rows.write_text(f"[[offers]]\nname = 'h100_sxm/on-demand'\nprice = {price}\nas_of = '2026-11'\nsource = 'vendor'\n")
    for flags in (("--catalogue", rows), ("--set", f"catalogue=[{rows.name}]")):
        code, out, err = trilemma_says("plan", path, *flags, "--output-file", tmp_path / "plan.json")
        assert (code, out) == (2, "")
        assert "rows.toml: offers[0].price: expected " in err
        assert not (tmp_path / "plan.json").exists()
