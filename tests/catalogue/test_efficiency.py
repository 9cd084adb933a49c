"""The fitted shares: every row loads and is physical, and what is carried over says so."""

import tomllib
from dataclasses import fields, replace
from importlib.resources import files

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.efficiency import FILE, EngineEfficiency, Roofline, efficiency_for
from trilemma.catalogue.figure import Source

CATALOGUE = load_catalogue()
RAW = tomllib.loads(files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8"))
ROWS, RELATIVES, ENGINES = RAW["accelerators"], RAW["relatives"], RAW["engines"]
MEASURED = [name for name in CATALOGUE.accelerators if name in ROWS]
CARRIED_OVER = [name for name in CATALOGUE.accelerators if name not in ROWS]
OPERATIONS = ("decode_attention", "prefill_attention", "collective")


def rooflines(kernels) -> dict[str, Roofline]:
    tables = {f"{kind}.{name}": row for kind in ("gemm", "expert") for name, row in getattr(kernels, kind).items()}
    return tables | {name: getattr(kernels, name) for name in OPERATIONS}


def raw_rooflines(name: str) -> dict[str, dict]:
    row = ROWS[name]
    tables = {f"{kind}.{fmt}": values for kind in ("gemm", "expert") for fmt, values in row[kind].items()}
    return tables | {operation: row[operation] for operation in OPERATIONS}


# Rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerator", CATALOGUE.accelerators)
@pytest.mark.parametrize("engine", CATALOGUE.engines)
def test_every_accelerator_has_shares_of_its_peaks_under_every_engine(accelerator, engine):
    efficiency = efficiency_for(CATALOGUE.accelerator(accelerator), engine)
    for what, row in rooflines(efficiency.kernels).items():
        assert 0 < row.memory <= 1, what
        assert 0 < row.compute <= 1, what
        assert row.blend >= 1, what
        assert 0 < row.fixed_s < 1e-3, what
    assert 0 < efficiency.network_share <= 1
    assert 0 < efficiency.network_collective_s < 1e-3


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_as_written_and_belongs_to_a_catalogue_accelerator(name):
    efficiency = efficiency_for(CATALOGUE.accelerator(name), "vllm")
    raw, read = raw_rooflines(name), rooflines(efficiency.kernels)
    assert raw.keys() == read.keys()
    for what, row in read.items():
        expected = (raw[what]["memory"], raw[what].get("compute", 1.0), raw[what]["blend"], raw[what]["fixed_s"])
        assert (row.memory, row.compute, row.blend, row.fixed_s) == expected, what
    assert (efficiency.source, efficiency.note) == (Source.FITTED, "")
    assert (efficiency.kernels.source, efficiency.kernels.relative) == (Source.FITTED, name)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_how_many_points_it_rests_on_and_how_far_they_spread(name):
    for what, raw in raw_rooflines(name).items():
        low, high = raw["spread"]
        assert 0 < low <= 1 <= high, what
        assert raw["points"] >= 100, what


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_a_bf16_kernel_to_fall_back_on_and_only_formats_the_hardware_has(name):
    has = set(CATALOGUE.accelerator(name).flops)
    gemm, expert = set(ROWS[name]["gemm"]), set(ROWS[name]["expert"])
    assert "bf16" in gemm & expert
    assert gemm <= has
    assert expert - {"w4a16", "w4a8"} <= has
    assert "w4a8" not in expert or "fp8" in has


def test_the_table_says_where_it_is_from():
    assert RAW["source"] == "fitted"
    assert RAW["as_of"] >= "2026"
    assert RAW["reference"]


# Relatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "relative"), RELATIVES.items())
def test_relatives_resolve(family, relative):
    assert relative["row"] in ROWS
    assert relative.get("slower", 1.0) >= 1
    assert "slower" not in relative or relative["reference"]
    assert family == "default" or family in {a.family for a in CATALOGUE.accelerators.values()}


def test_every_family_of_the_catalogue_has_a_relative():
    assert {a.family for a in CATALOGUE.accelerators.values()} <= RELATIVES.keys()
    assert MEASURED
    assert {"l4", "mi300x", "mi325x", "mi355x"} <= set(CARRIED_OVER)


@pytest.mark.parametrize("name", CARRIED_OVER)
def test_what_is_carried_over_is_derived_and_says_from_whom(name):
    accelerator = CATALOGUE.accelerator(name)
    efficiency = efficiency_for(accelerator, "vllm")
    relative = RELATIVES[accelerator.family]
    assert efficiency.source is efficiency.kernels.source is Source.DERIVED
    assert efficiency.kernels.relative == relative["row"]
    assert f"kernels of {relative['row']}" in efficiency.note
    assert f"none of {name} are measured" in efficiency.note
    assert ("times as slow" in efficiency.note) == (relative.get("slower", 1.0) != 1)


@pytest.mark.parametrize("name", ["mi300x", "mi325x"])
def test_a_slower_relative_divides_the_shares_and_stretches_fixed_times(name):
    slower = RELATIVES[CATALOGUE.accelerator(name).family]["slower"]
    own = rooflines(efficiency_for(CATALOGUE.accelerator(name), "sglang").kernels)
    theirs = rooflines(efficiency_for(CATALOGUE.accelerator("h100_sxm"), "sglang").kernels)
    assert slower > 1
    for what, row in own.items():
        assert row.memory == pytest.approx(theirs[what].memory / slower)
        assert row.compute == pytest.approx(theirs[what].compute / slower)
        assert row.fixed_s == pytest.approx(theirs[what].fixed_s * slower)
        assert row.blend == theirs[what].blend


def test_a_new_member_of_a_known_family_is_derived_and_an_unknown_family_a_guess():
    h100 = CATALOGUE.accelerator("h100_sxm")
    cousin = efficiency_for(replace(h100, name="h100_pcie"), "vllm")
    stranger = efficiency_for(replace(h100, name="tpu", family="tensor_unit"), "vllm")
    assert (cousin.source, cousin.kernels.relative) == (Source.DERIVED, RELATIVES["hopper"]["row"])
    assert (stranger.source, stranger.kernels.relative) == (Source.GUESS, RELATIVES["default"]["row"])
    assert "none of h100_pcie are measured" in cousin.note
    assert "none of tpu are measured" in stranger.note


# Engines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_row_is_complete_and_plausible(name):
    assert name in CATALOGUE.engines
    engine = efficiency_for(CATALOGUE.accelerator("h100_sxm"), name).engine
    assert ENGINES[name].keys() == {f.name for f in fields(EngineEfficiency)}
    assert 0 < engine.step_s < 0.02
    assert 0 < engine.layer_s < 1e-3
    assert 0 <= engine.sequence_s < 1e-3
    assert 0 <= engine.request_s < 1
    for scale in ("gemm", "expert", "expert_4bit", "attention", "collective", "prefill"):
        assert 0.3 < getattr(engine, scale) < 3, scale
    assert 0 < engine.elementwise_passes < 100
    assert 1 <= engine.mtp_tokens < 4
    for spread in (engine.tpot_spread, engine.ttft_spread, engine.throughput_spread):
        low, high = spread
        assert 0 < low < high


def test_an_engine_without_measured_runs_takes_vllms_overheads_as_a_guess():
    efficiency = efficiency_for(CATALOGUE.accelerator("h100_sxm"), "lmdeploy")
    assert efficiency.engine == efficiency_for(CATALOGUE.accelerator("h100_sxm"), "vllm").engine
    assert efficiency.source is Source.GUESS
    assert efficiency.kernels.source is Source.FITTED
    assert "overheads of vllm (no measured runs of lmdeploy)" in efficiency.note


def test_the_weakest_part_names_the_source():
    both = efficiency_for(CATALOGUE.accelerator("mi300x"), "lmdeploy")
    assert both.source is Source.GUESS
    assert both.note.count(";") == 1
