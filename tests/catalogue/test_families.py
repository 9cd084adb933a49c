"""Families without measured kernels: constants of their own in place of the engine's, by number format."""

import math
import tomllib
from dataclasses import replace
from importlib import resources

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.efficiency import FILE, efficiency_for, engine_efficiency
from trilemma.catalogue.figure import Source
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.latency.constants import efficiency_of
from trilemma.latency.gemm import FORMS
from trilemma.latency.step import StepModel

CATALOGUE = load_catalogue()
TABLE = tomllib.loads(resources.files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8"))
FAMILIES = TABLE["families"]
DEEPSEEK, DENSE = "deepseek-ai/DeepSeek-R1-0528", "meta-llama/Llama-3.1-8B-Instruct"
OF_FAMILIES = [a for a in CATALOGUE.accelerators.values() if a.family in FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_it_rests_on(family):
    assert FAMILIES[family]["note"]
    assert "runs" in FAMILIES[family]["reference"]


@pytest.mark.parametrize("family", FAMILIES)
def test_constants_are_positive_and_no_worse_than_a_few_times_the_relative(family):
    constants = FAMILIES[family]
    assert 0 < constants["request_s"] < 1
    for slower in [constants["slower"], *(own["slower"] for own in constants["forms"].values())]:
        assert 0.5 < slower < 4
    assert all(0 < own["layer_s"] < 1e-3 for own in constants["forms"].values())


@pytest.mark.parametrize("family", FAMILIES)
def test_forms_are_those_of_kernels(family):
    assert FAMILIES[family]["forms"].keys() <= FORMS.keys()
    assert all(own.keys() <= {"slower", "layer_s"} for own in FAMILIES[family]["forms"].values())


@pytest.mark.parametrize("accelerator", OF_FAMILIES, ids=lambda a: a.name)
@pytest.mark.parametrize("engine", TABLE["engines"])
def test_a_family_replaces_overheads_and_leaves_the_rest_of_the_engine(accelerator, engine):
    own, family = engine_efficiency(engine), FAMILIES[accelerator.family]
    for form in ("", "bf16", *family["forms"]):
        found = efficiency_for(accelerator, engine, form)
        assert found.engine.request_s == family["request_s"]
        assert found.engine.layer_s == family["forms"].get(form, {}).get("layer_s", own.layer_s)
        assert replace(found.engine, request_s=own.request_s, layer_s=own.layer_s) == own


@pytest.mark.parametrize("accelerator", OF_FAMILIES, ids=lambda a: a.name)
def test_slower_is_that_of_the_form_or_else_the_familys(accelerator):
    family = FAMILIES[accelerator.family]
    for form in ("", *FORMS):
        expected = family["forms"].get(form, family)["slower"]
        assert efficiency_for(accelerator, "sglang", form).slower == expected


@pytest.mark.parametrize("accelerator", OF_FAMILIES, ids=lambda a: a.name)
def test_a_family_is_derived_and_says_so(accelerator):
    found = efficiency_for(accelerator, "sglang")
    assert found.source is Source.DERIVED
    assert found.note == FAMILIES[accelerator.family]["note"]


def test_engines_without_runs_stay_guesses_and_keep_both_notes():
    found = efficiency_for(CATALOGUE.accelerator("mi300x"), "lmdeploy")
    assert found.source is Source.GUESS
    assert "lmdeploy" in found.note
    assert FAMILIES["cdna3"]["note"] in found.note


@pytest.mark.parametrize("name", ["h100_sxm", "b200_sxm", "a100_sxm", "l40s"])
def test_families_with_measured_kernels_have_the_engines_constants(name):
    found = efficiency_for(CATALOGUE.accelerator(name), "vllm", "fp8_block")
    assert found.engine == engine_efficiency("vllm")
    assert found.slower == 1.0
    assert found.source is Source.FITTED
    assert not found.note


def deployment_of(model_name: str, accelerator: str, precision: str, **parallelism: int) -> Deployment:
    model, engine = CATALOGUE.model(model_name), CATALOGUE.engine("sglang")
    return Deployment(
        model=model,
        precision=CATALOGUE.precision(precision).for_model(is_moe=model.is_moe),
        accelerator=CATALOGUE.accelerator(accelerator),
        engine=engine,
        parallelism=Parallelism(**parallelism),
        knobs=SchedulerKnobs(max_num_batched_tokens=2048, max_num_seqs=64, block_tokens=16, gpu_memory_utilization=0.9),
        kv_bytes_per_element=2.0,
    )


def steps_of(slower: float) -> StepModel:
    d = deployment_of(DENSE, "mi300x", "bf16", tensor=1)
    return StepModel(d, replace(efficiency_of(d), slower=slower))


@pytest.mark.parametrize(
    ("model", "accelerator", "precision", "form"),
    [
        (DEEPSEEK, "mi300x", "fp8", "fp8_block"),
        (DEEPSEEK, "mi355x", "fp8", "fp8_block"),
        (DEEPSEEK, "mi355x", "mxfp4", "nvfp4"),
        (DENSE, "mi300x", "fp8", "fp8"),
        (DENSE, "mi355x", "bf16", "bf16"),
        (DENSE, "h100_sxm", "fp8", "fp8"),
    ],
)
def test_a_deployment_has_the_constants_of_its_largest_kernels(model, accelerator, precision, form):
    d = deployment_of(model, accelerator, precision, tensor=8)
    assert efficiency_of(d) == efficiency_for(d.accelerator, "sglang", form)


def test_what_one_model_showed_of_block_scaled_kernels_is_not_laid_on_others():
    dense = efficiency_of(deployment_of(DENSE, "mi300x", "fp8", tensor=1))
    assert dense.engine.layer_s == engine_efficiency("sglang").layer_s


def test_kernels_take_so_much_longer_and_overheads_do_not():
    usual, slow = (steps_of(slower).terms(decodes=8, context_sum=8000, sampling=8).seconds for slower in (1.0, 1.5))
    for term in ("GEMMs", "output head", "decode attention"):
        assert math.isclose(slow[term], 1.5 * usual[term], rel_tol=1e-6)
    for term in ("host", "sampling"):
        assert slow[term] == usual[term]


def test_a_familys_doubt_reaches_the_step_model():
    steps = steps_of(1.5)
    assert steps.source >= Source.DERIVED
    assert FAMILIES["cdna3"]["note"] in steps.efficiency.note
