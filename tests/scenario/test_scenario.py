"""What a scenario file may say, and what each mistake in it is answered with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import InputError
from trilemma.scenario import Scenario, load_scenario, scenario_from
from trilemma.units import parse_time_s

HEAD = """\
version: 1
model: meta-llama/Meta-Llama-3.1-70B
workload:
  trace: azure_2023_conv
"""
SYNTHETIC = """\
version: 1
model: meta-llama/Meta-Llama-3.1-70B
workload:
  arrivals: {process: gamma, rate: 12 req/s, burstiness: 0.5, requests: 100}
  lengths:
    prompt: {distribution: uniform, low: 800, high: 1000}
    output: {distribution: fixed, tokens: 100}
"""

SESSIONS = """\
version: 1
model: meta-llama/Meta-Llama-3.1-70B
workload:
  arrivals: {process: poisson, rate: 2 req/s, requests: 100}
  sessions:
    turns: {distribution: geometric, mean: 5}
    user_tokens: {distribution: lognormal, median: 60, p95: 400}
    output_tokens: {distribution: fixed, tokens: 100}
    think_time: {distribution: lognormal, median: 20 s, p95: 3 min, maximum: 1 h}
    system_prompt_tokens: 1000
    shared_prefixes: 3
    max_model_len: 32768
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, **overrides: object) -> Scenario:
        path = tmp_path / "chat.yaml"
        path.write_text(text, encoding="utf-8")
        return load_scenario(path, {key.replace("__", "."): value for key, value in overrides.items()})

    return read


@pytest.fixture
def refusal(read, tmp_path):
    def refusal(text: str, **overrides: object) -> str:
        with pytest.raises(InputError) as caught:
            read(text, **overrides)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refusal


def test_defaults_stand_in_for_what_is_left_out(read):
    scenario = read(HEAD)
    assert scenario.name == "chat"
    assert scenario.limits == ()
    assert scenario.seed == 0
    assert scenario.sizing.headroom == 0.25
    assert scenario.workload.rate_scale == 1.0
    assert scenario.space.max_gpus is None


def test_texts_with_units_come_out_in_seconds_and_shares(read):
    window = "  window: {start: 500 msec, end: 90 min}\n"
    scenario = read(HEAD + window + 'limits: ["ttft p99.9 <= 500 ms", "goodput >= 95%", "deadline <= 6 h"]\n')
    assert (scenario.workload.window.start_s, scenario.workload.window.end_s) == (0.5, 5400.0)
    assert [limit.bound for limit in scenario.parsed_limits] == [0.5, 0.95, 21600.0]
    assert scenario.parsed_limits[0].quantile == pytest.approx(0.999)


def test_synthetic_loads_become_the_workload_rooms_own_values(read):
    workload = read(SYNTHETIC).workload
    assert workload.arrivals.value.rate_per_s == 12
    assert workload.lengths.prompt.value.mean_tokens == 900


def test_sessions_become_the_workload_rooms_own_values(read):
    value = read(SESSIONS).workload.sessions.value
    assert (value.turns.mean_tokens, value.output_tokens.tokens, value.block_tokens) == (5, 100, 16)
    assert (value.think_time.median_s, value.think_time.p95_s, value.think_time.maximum_s) == (20, 180, 3600)
    assert (value.system_prompt_tokens, value.shared_prefixes, value.max_model_len) == (1000, 3, 32768)
    assert read(SESSIONS.replace("    max_model_len: 32768\n", "")).workload.sessions.value.max_model_len == 2**31 - 1


@pytest.mark.parametrize(
    "text", [HEAD, SYNTHETIC, SESSIONS, HEAD + "economics: {discount_rate: 9%}\nas_of: 2026-11-01\n"]
)
def test_a_resolved_scenario_reads_back_as_itself(read, text):
    scenario = read(text, **{"space.max_gpus": "16"})
    again = scenario_from(scenario.resolved(), folder=scenario.folder)
    assert again.resolved() == scenario.resolved()
    assert again.parsed_limits == scenario.parsed_limits


def test_flags_win_over_the_file_and_none_removes(read):
    scenario = read(HEAD + "seed: 1\nas_of: 2026-11-01\n", seed="7", as_of=None, space__tensor_parallel="[1, 2]")
    assert (scenario.seed, scenario.as_of, scenario.space.tensor_parallel) == (7, None, (1, 2))


def test_relative_paths_start_at_the_scenarios_folder(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    (tmp_path / "there" / "rows.toml").write_text("")
    (tmp_path / "there" / "local").mkdir()
    (tmp_path / "there" / "local" / "config.json").write_text("{}")
    path = tmp_path / "there" / "chat.yaml"
    path.write_text("version: 1\nmodel: ./local\nworkload: {trace: mine.csv}\ncatalogue: [rows.toml]\n")
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario(Path("there/chat.yaml"))
    assert scenario.model_source == Path("there/local")
    assert scenario.catalogue_files == (Path("there/rows.toml"),)
    assert scenario.resolved()["workload"]["trace"] == "mine.csv"


def test_a_catalogue_name_with_a_slash_is_no_path(read):
    assert read(HEAD).model_source == "meta-llama/Meta-Llama-3.1-70B"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "space:\n  max_gpu: 8\n", "chat.yaml:6: space.max_gpu: expected a known key, found the unknown key "
         "'max_gpu' (did you mean 'max_gpus'?)"),
        (HEAD.replace("trace:", "trcae:"), "chat.yaml:4: workload.trcae: expected a known key, found the unknown key "
         "'trcae' (did you mean 'trace'?)"),
        (HEAD + "colour: red\n", "chat.yaml:5: colour: expected a known key, found the unknown key 'colour' (known "
         "here: version, name, model, "),
        (HEAD + "  window: {start: 500}\n", "chat.yaml:5: workload.window.start: expected a time with a unit such as "
         "'500 ms', found '500' (the unit is missing)"),
        (HEAD + "  window: {start: 5 parsecs}\n", "chat.yaml:5: workload.window.start: expected a time with a unit"),
        (HEAD + "  window: {start: 2 h, end: 1 h}\n", "chat.yaml:5: workload.window.end: expected an end after"),
        (HEAD + 'limits: ["ttft p99 <= 500"]\n', "chat.yaml:5: limits[0]: expected a time with a unit such as '500 ms'"
         ", found '500' (the unit is missing)"),
        (HEAD + "limits:\n  - ttft p99 <= 1 s\n  - ttft p100 <= 1 s\n", "chat.yaml:7: limits[1]: expected a statistic:"
         " 'mean' or a percentile above p0 and below p100 such as 'p99' or 'p99.9', found 'p100'"),
        (HEAD + 'limits: ["ttft p0 <= 1 s"]\n', "chat.yaml:5: limits[0]: expected a statistic"),
        (HEAD + 'limits: ["latency p99 <= 1 s"]\n', "chat.yaml:5: limits[0]: expected one of ttft, itl, tpot, e2e"),
        (HEAD + 'limits: ["ttft p99 >= 1 s"]\n', "chat.yaml:5: limits[0]: expected '<=' for ttft, found '>='"),
        (HEAD + 'limits: ["ttft p99 <= 1 s", "ttft p99 <= 2 s"]\n', "chat.yaml:5: limits[1]: expected one limit"),
        (HEAD + "limits: ttft p99 <= 1 s\n", "chat.yaml:5: limits: expected a list, found 'ttft p99 <= 1 s'"),
        (HEAD + "economics: {electricity_usd_per_kwh: -0.1}\n", "chat.yaml:5: economics.electricity_usd_per_kwh: "
         "expected a number of at least 0, found -0.1"),
        (HEAD + "economics: {electricity_usd_per_kwh: .nan}\n", "chat.yaml:5: economics.electricity_usd_per_kwh: "
         "expected a finite number, found nan"),
        (HEAD + "economics: {discount_rate: nan%}\n", "chat.yaml:5: economics.discount_rate: expected a share that is"
         " finite"),
        (HEAD + "economics: {discount_rate: 9}\n", "chat.yaml:5: economics.discount_rate: expected a share such as "
         "'25%' or 0.25, found 9 (write '9%')"),
        (HEAD + "economics: {pue: 0.9}\n", "chat.yaml:5: economics.pue: expected a number of at least 1, found 0.9"),
        (HEAD + "economics: {residual_share: 120%}\n", "chat.yaml:5: economics.residual_share: expected a residual"),
        (HEAD + "economics: {discont_rate: 9%}\n", "did you mean 'discount_rate'?"),
        (HEAD + "economics: {horizon_months: 0}\n", "chat.yaml:5: economics.horizon_months: expected a number above 0"),
        (HEAD + "economics: {instance_start_s: -1}\n", "chat.yaml:5: economics.instance_start_s: expected a number of "
         "at least 0, found -1"),
        (HEAD + "economics:\n  grid_region: eu\n  grid_gco2_per_kwh: 12\n", "chat.yaml:6: economics.grid_region: "
         "expected a region or grid_gco2_per_kwh, found both (leave one of them out)"),
        (HEAD + "economics: {exchange_rates: {EUR: 0}}\n", "chat.yaml:5: economics.exchange_rates.EUR: expected a "
         "number above 0, found 0"),
        (HEAD + "economics: {exchange_rates: {euro: 1.08}}\n", "chat.yaml:5: economics.exchange_rates.euro: expected a "
         "currency such as EUR, other than USD, found 'euro'"),
        (HEAD + "economics: {exchange_rates: {USD: 1}}\n", "chat.yaml:5: economics.exchange_rates.USD: expected "),
        (HEAD + "economics: {exchange_rates: 1.08}\n", "chat.yaml:5: economics.exchange_rates: expected "),
        (HEAD + "space: {tensor_parallel: [1, 0]}\n", "chat.yaml:5: space.tensor_parallel[1]: expected a number of at "
         "least 1, found 0"),
        (HEAD + "space: {tensor_parallel: []}\n", "chat.yaml:5: space.tensor_parallel: expected at least one entry"),
        (HEAD + "space: {accelerators: [h100, h100]}\n", "chat.yaml:5: space.accelerators[1]: expected each entry "),
        (HEAD + "space: {max_gpus: 8.0}\n", "chat.yaml:5: space.max_gpus: expected a whole number, found 8.0"),
        (HEAD + "space: {max_gpus: yes}\n", "chat.yaml:5: space.max_gpus: expected a whole number, found 'yes'"),
        (HEAD + "seed: -1\n", "chat.yaml:5: seed: expected a number of at least 0, found -1"),
        (HEAD + "as_of: 2026-13-01\n", "chat.yaml:5: as_of: expected a date such as 2026-11-01, found '2026-13-01'"),
        (HEAD + "sizing:\n", "chat.yaml:5: sizing: expected a mapping of keys, found nothing"),
        (HEAD.replace("version: 1", "version: 2"), "chat.yaml:1: version: expected 1, found 2"),
        (HEAD.replace("version: 1\n", ""), "chat.yaml: version: expected a value, found nothing"),
        (HEAD + "  profile: {multipliers: [1, 2], trace_is: peak}\n", "chat.yaml:5: workload.profile.multipliers: "
         "expected 24 numbers (a day) or 168 (a week from Monday), found 2 numbers"),
        (HEAD + f"  profile: {{multipliers: {[1] * 24}, trace_is: top}}\n", "chat.yaml:5: workload.profile.trace_is: "
         "expected 'peak' or 'mean', found 'top'"),
        (HEAD + "  format: azur\n", "chat.yaml:5: workload.format: expected auto, azure, "),
        (HEAD + "  rate_scale: 0\n", "chat.yaml:5: workload.rate_scale: expected a number of at least 1e-06, found 0"),
        (HEAD.replace("azure_2023_conv", "azure_2023_con"), "chat.yaml:4: workload.trace: expected a trace file or a "
         "shipped name (azure_2023_conv), found no such file (nearest: azure_2023_conv; "),
        (HEAD + "catalogue: [mine.toml]\n", "chat.yaml:5: catalogue[0]: expected an existing file, found no file "),
        (HEAD.replace("meta-llama/Meta-Llama-3.1-70B", "./config.json"), "chat.yaml:2: model: expected an existing"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_key(refusal, text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nmodel: m\nworkload: {}\n", "chat.yaml:3: workload: expected a trace, or arrivals with "
         "lengths or sessions, found neither"),
        (HEAD + "  arrivals: {process: batch, requests: 5}\n", "chat.yaml:5: workload.arrivals: expected either a "
         "trace or synthetic requests, found arrivals beside a trace"),
        ("version: 1\nmodel: m\nworkload:\n  arrivals: {process: batch, requests: 5}\n", "workload.lengths: expected "
         "lengths (or sessions) beside arrivals, found nothing"),
        (SYNTHETIC + "  window: {start: 1 s}\n", "workload.window: expected synthetic requests alone"),
        (SYNTHETIC.replace("gamma", "poisson"), "chat.yaml:4: workload.arrivals.burstiness: expected "),
        (SYNTHETIC.replace("rate: 12 req/s, ", ""), "chat.yaml:4: workload.arrivals.rate: expected a value"),
        (SYNTHETIC.replace("12 req/s", "12"), "chat.yaml:4: workload.arrivals.rate: expected a rate with a unit such "
         "as '12 req/s', found '12' (the unit is missing)"),
        (SYNTHETIC.replace("requests: 100", "concurrency: 3"), "workload.arrivals.concurrency: expected no"),
        (SYNTHETIC.replace("low: 800", "low: 8000"), "chat.yaml:6: workload.lengths.prompt.high: expected at least "
         "low, 8000, found 1000"),
        (SYNTHETIC.replace("tokens: 100", "tokens: 0"), "chat.yaml:7: workload.lengths.output.tokens: expected a whole"
         " number of tokens"),
        (SYNTHETIC.replace("tokens: 100", "low: 1"), "chat.yaml:7: workload.lengths.output.low: expected only tokens"),
        (SYNTHETIC.replace(", tokens: 100", ""), "workload.lengths.output.tokens: expected a value"),
        (HEAD + SESSIONS.partition("req/s, requests: 100}\n")[2], "chat.yaml:5: workload.sessions: expected either a "
         "trace or synthetic requests, found sessions beside a trace"),
        (SESSIONS + "  lengths: {prompt: {distribution: fixed, tokens: 1}, output: {distribution: fixed, tokens: 1}}\n",
         "chat.yaml:5: workload.sessions: expected either lengths or sessions, found sessions beside lengths"),
        (SESSIONS.replace("poisson, rate: 2 req/s", "closed_loop, concurrency: 5"), "chat.yaml:4: workload.arrivals."
         "process: expected sessions that begin at a rate or all at once: think times close the loop"),
        (SESSIONS.replace("mean: 5", "mean: 0.5"), "chat.yaml:6: workload.sessions.turns.mean: expected a number from"),
        (SESSIONS.replace("20 s", "20"), "chat.yaml:9: workload.sessions.think_time.median: expected a time with a "
         "unit such as '500 ms', found '20' (the unit is missing)"),
        (SESSIONS.replace("20 s", "20 h"), "chat.yaml:9: workload.sessions.think_time.p95: expected at least the med"),
        (SESSIONS.replace("p95: 3 min, ", ""), "workload.sessions.think_time.p95: expected p95 or sigma beside the "),
        (SESSIONS.replace("median: 20 s", "mean: 20 s"), "chat.yaml:9: workload.sessions.think_time.mean: expected "),
        (SESSIONS.replace("tokens: 1000", "tokens: 0"), "chat.yaml:10: workload.sessions.system_prompt_tokens: expect"
         "ed system_prompt_tokens above 0 beside several shared_prefixes, found 0"),
        (SESSIONS.replace("shared_prefixes: 3", "shared_prefixes: 0"), "chat.yaml:11: workload.sessions.shared_pre"),
        (SESSIONS.replace("max_model_len: 32768", "max_model_len: 1"), "chat.yaml:12: workload.sessions.max_model"),
        (SESSIONS.replace("shared_prefixes", "shared_prefix"), "the unknown key 'shared_prefix' (did you mean 'sh"),
        (SESSIONS.replace("    think_time", "    # think_time"), "workload.sessions.think_time: expected "),
    ],
)  # fmt: skip
def test_contradictions_and_gaps_in_the_load(refusal, text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "chat.yaml: expected a mapping of keys such as 'version: 1', found an empty file"),
        ("- 1\n", "chat.yaml: expected a mapping of keys such as 'version: 1', found a list"),
        ("version: 1\nversion: 1\n", "chat.yaml:2: version: expected each key once, found it twice (first on line 1)"),
        ("version: [1\nmodel: x\n", "chat.yaml:2:6: expected YAML, found "),
        ("version: 1\n\tmodel: x\n", "chat.yaml:2:1: expected YAML, found "),
        ("a: &a 1\nb: *a\n", "chat.yaml:1: expected values written out, found the anchor 'a'"),
        ("version: !!python/object:os.system 1\n", "chat.yaml:1: expected a plain value, found the tag "),
        ("version: 1\n---\nversion: 2\n", "chat.yaml:2:1: expected YAML, found "),
        ("[1, 2]: x\n", "chat.yaml:1: expected a word as key, found a list or mapping"),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "expected values nested at most 20 deep"),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", "expected values nested at most 20 deep"),
        ("a: \x00\n", "chat.yaml: expected YAML, found "),
    ],
)
def test_broken_yaml_is_an_error_with_its_place(refusal, text, said):
    assert said in refusal(text)


def test_a_flags_mistake_names_the_flag(refusal):
    assert refusal(HEAD, workload__window__start="500").startswith("--set workload.window.start: expected a time with")
    assert refusal(HEAD, seed__x="1").startswith("--set seed.x: expected a whole number")
    assert refusal(HEAD, model__x="1").startswith("--set model.x: expected a key inside a mapping")
    assert refusal(HEAD, space__max_gpus="[1").startswith("--set space.max_gpus:1:3: expected YAML")
    assert "--set limits: limits[0]: expected" in refusal(HEAD, limits="[ttft p0 <= 1 s]")


def test_later_readers_can_point_into_the_file(read, tmp_path):
    scenario = read(HEAD + "space:\n  accelerators: [h100, h200]\n", seed="3")
    assert scenario.where("space", "accelerators", 1) == f"{tmp_path}/chat.yaml:6: space.accelerators[1]"
    assert scenario.where("seed") == "--set seed"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "chat.yaml").write_bytes(b"version: \xff\n")
    for path, said in [("chat.yaml", "text in UTF-8"), ("chatt.yaml", "did you mean 'chat.yaml'?"), ("", "directory")]:
        with pytest.raises(InputError, match=said):
            load_scenario(tmp_path / path)


def test_words_that_other_yaml_readers_turn_into_something_else(read):
    scenario = read(HEAD + "name: on\nspace: {offers: [on-demand, no]}\nas_of: 2026-11-01\n")
    assert (scenario.name, scenario.space.offers, scenario.as_of) == ("on", ("on-demand", "no"), "2026-11-01")
    assert read(HEAD + "economics: {horizon_months: 3.6e1}\n").economics.given() == {"horizon_months": 36.0}


def test_a_region_and_rates_are_no_numbers_of_the_economics(read):
    economics = read(HEAD + "economics: {grid_region: ireland, exchange_rates: {EUR: 1.08}, pue: 1.2}\n").economics
    assert economics.given() == {"pue": 1.2}
    assert (economics.grid_region, economics.rates()) == ("ireland", {"EUR": 1.08})
    assert read(HEAD).economics.rates() == {}


@given(seconds=st.floats(min_value=0, max_value=1e9), unit=st.sampled_from(["ms", "s", "min", "h"]))
def test_durations_survive_resolution_exactly(seconds, unit):
    text = f"{seconds!r} {unit}"
    data = {"version": 1, "model": "m", "workload": {"trace": "azure_2023_conv", "window": {"start": text}}}
    scenario = scenario_from(data, folder=Path())
    again = scenario_from(scenario.resolved(), folder=Path())
    assert again.workload.window.start_s == scenario.workload.window.start_s == parse_time_s(text, where="")
