"""The fitted constants: every row loads and is plausible, and what is carried over says so. Families without measured
kernels: tests/catalogue/test_families.py."""

import tomllib
from dataclasses import fields, replace
from importlib.resources import files

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.efficiency import FILE, EngineEfficiency, efficiency_for, engine_efficiency
from trilemma.catalogue.figure import Source
from trilemma.catalogue.surfaces import load_surfaces
from trilemma.latency.gemm import FORMS

CATALOGUE = load_catalogue()
RAW = tomllib.loads(files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8"))
FAMILIES, ENGINES = RAW["families"], RAW["engines"]
MEASURED = {accelerator for _, accelerator, *_ in load_surfaces()}


@pytest.mark.parametrize("accelerator", CATALOGUE.accelerators)
@pytest.mark.parametrize("engine", CATALOGUE.engines)
def test_every_accelerator_has_constants_under_every_engine_for_every_form_of_kernel(accelerator, engine):
    for form in ("", *FORMS):
        efficiency = efficiency_for(CATALOGUE.accelerator(accelerator), engine, form)
        assert 0.5 < efficiency.slower < 5
        for field in fields(EngineEfficiency):
            assert getattr(efficiency.engine, field.name) > 0, field.name
        assert efficiency.source in {Source.FITTED, Source.DERIVED, Source.GUESS}
        assert (efficiency.source is Source.FITTED) == (efficiency.note == "")


def test_the_table_says_where_it_is_from():
    assert RAW["source"] == "fitted"
    assert RAW["as_of"] >= "2026"
    assert RAW["reference"]


# Engines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_row_is_complete_and_plausible(name):
    assert name in CATALOGUE.engines
    engine = engine_efficiency(name)
    assert ENGINES[name].keys() == {f.name for f in fields(EngineEfficiency)}
    assert 0 < engine.step_s < 0.02
    assert 0 < engine.layer_s < 1e-3
    assert 0 <= engine.prefill_layer_s < 1e-3
    assert 0 <= engine.sequence_s < 1e-3
    assert 0 <= engine.request_s < 1
    for scale in ("gemm", "expert", "expert_4bit", "attention", "prefill_attention", "collective"):
        assert 0.3 < getattr(engine, scale) < 3, scale
    for stretch in ("prefill", "expert_prefill"):  # a step with prefill tokens does not run faster than its kernels
        assert 1 <= getattr(engine, stretch) < 3, stretch
    assert 0 < engine.elementwise_passes < 100
    assert 1 <= engine.mtp_tokens < 4


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_is_read_as_written_wherever_kernels_are_measured(name):
    for accelerator in CATALOGUE.accelerators.values():
        efficiency = efficiency_for(accelerator, name, "fp8")
        if accelerator.family not in FAMILIES:
            assert efficiency.engine == EngineEfficiency(**ENGINES[name]) == engine_efficiency(name)
            assert (efficiency.slower, efficiency.source, efficiency.note) == (1.0, Source.FITTED, "")


def test_an_engine_without_measured_runs_takes_vllms_overheads_as_a_guess():
    efficiency = efficiency_for(CATALOGUE.accelerator("h100_sxm"), "lmdeploy")
    assert efficiency.engine == efficiency_for(CATALOGUE.accelerator("h100_sxm"), "vllm").engine
    assert efficiency.engine == engine_efficiency("lmdeploy")
    assert efficiency.source is Source.GUESS
    assert efficiency.note == "overheads of vllm (no measured runs of lmdeploy)"


# Families ------------------------------------------------------------------------------------------------------


def test_constants_of_a_familys_own_stand_where_none_of_its_kernels_are_measured_and_only_there():
    families = {CATALOGUE.accelerator(name).family for name in MEASURED if name in CATALOGUE.accelerators}
    assert not families & FAMILIES.keys()
    assert {a.family for a in CATALOGUE.accelerators.values()} <= families | FAMILIES.keys()
    members = [a.name for a in CATALOGUE.accelerators.values() if a.family in FAMILIES]
    assert {"mi300x", "mi325x", "mi355x"} <= set(members)


def test_a_new_member_of_a_family_has_the_familys_constants_and_an_unknown_family_the_engines():
    """How far the kernels themselves can be trusted there is said by `catalogue.transfer`."""
    mi300x, h100 = (CATALOGUE.accelerator(name) for name in ("mi300x", "h100_sxm"))
    cousin = efficiency_for(replace(mi300x, name="mi308x"), "vllm")
    stranger = efficiency_for(replace(h100, name="tpu", family="tensor_unit"), "vllm")
    assert cousin == efficiency_for(mi300x, "vllm")
    assert stranger == efficiency_for(h100, "vllm")


def test_the_weakest_part_names_the_source():
    both = efficiency_for(CATALOGUE.accelerator("mi300x"), "lmdeploy")
    assert both.source is Source.GUESS
    assert both.note == f"overheads of vllm (no measured runs of lmdeploy); {FAMILIES['cdna3']['note']}"
