"""GEMM times: laws of the base and of the shipped surfaces, and kernels as they were measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.latency.deployments import CATALOGUE
from trilemma.catalogue.surfaces import load_surfaces
from trilemma.errors import UnsupportedError
from trilemma.latency.gemm import FORMS, LAUNCH_S, gemm_base_s, gemm_cost, gemm_features

SHIPPED = {key[1:]: surface for key, surface in load_surfaces().items() if key[0] == "gemm"}
DOUBLINGS = 2.0 ** np.arange(15)
WIDTHS = np.array([512, 1024, 1536, 2560, 4096, 5120, 7168, 8192, 14336, 28672], float)

sizes = st.floats(1, 65536)
forms = st.sampled_from(["bf16", "fp8", "fp8_block", "w8a16", "w4a16", "int8", "mxfp4_w4a16", "mxfp4_w4a8"])


def seconds(key, m, n, k):
    accelerator, _, form = key
    base = gemm_base_s(m, n, k, accelerator=CATALOGUE.accelerator(accelerator), form=form)
    return base * np.exp(SHIPPED[key].log_ratio(*gemm_features(m, n, k)))


@given(sizes, sizes, sizes, st.floats(1, 8), forms)
def test_more_of_anything_never_makes_the_base_shorter(m, n, k, more, form):
    h100 = CATALOGUE.accelerator("h100_sxm")

    def base(*shape):
        return float(gemm_base_s(*shape, accelerator=h100, form=form))

    once = base(m, n, k)
    assert once >= LAUNCH_S
    for shape in ((m * more, n, k), (m, n * more, k), (m, n, k * more)):
        assert base(*shape) >= once * (1 - 1e-12)


@given(sizes, sizes, sizes, forms)
def test_the_base_lies_between_its_longer_part_and_their_sum(m, n, k, form):
    cost = gemm_cost(m, n, k, accelerator=CATALOGUE.accelerator("h100_sxm"), form=form)
    busy = cost.seconds - cost.fixed_s
    longer = np.maximum(cost.memory_s, cost.compute_s)
    assert longer * (1 - 1e-9) - 1e-12 <= busy <= (cost.memory_s + cost.compute_s) * (1 + 1e-9) + 1e-12


def test_no_tokens_take_a_launch_and_the_weights():
    cost = gemm_cost(np.zeros(1), 4096, 4096, accelerator=CATALOGUE.accelerator("h100_sxm"), form="bf16")
    assert cost.seconds[0] == pytest.approx(LAUNCH_S + 4096**2 * 2 / 3.35e12)
    assert np.isfinite(gemm_features(np.zeros(1), 4096, 4096)[0]).all()


@pytest.mark.parametrize(("m", "binds"), [(1.0, "HBM bandwidth"), (16384.0, "FLOPs")])
def test_weights_bind_few_tokens_and_flops_bind_many(m, binds):
    assert (
        gemm_cost(np.array([m]), 8192, 8192, accelerator=CATALOGUE.accelerator("h100_sxm"), form="fp8").binds == binds
    )


def test_what_a_gpu_does_not_multiply_in_is_refused_with_the_reason():
    a100 = CATALOGUE.accelerator("a100_sxm")
    with pytest.raises(UnsupportedError, match="a100_sxm does not multiply in fp8"):
        gemm_base_s(np.ones(1), 512, 512, accelerator=a100, form="fp8")
    with pytest.raises(UnsupportedError, match="no kernel format 'fp7'"):
        gemm_base_s(np.ones(1), 512, 512, accelerator=a100, form="fp7")


def test_narrower_weights_are_read_sooner():
    h100 = CATALOGUE.accelerator("h100_sxm")
    one_token = {form: float(gemm_base_s(1.0, 8192, 8192, accelerator=h100, form=form)) for form in ("bf16", "fp8")}
    assert one_token["fp8"] < one_token["bf16"]
    assert FORMS["nvfp4"].weight_bytes < FORMS["fp8"].weight_bytes


def test_every_measured_accelerator_has_a_surface_of_all_engines_together():
    for accelerator, engine, form in SHIPPED:
        assert engine in {"any", "vllm", "sglang", "trtllm"}
        assert (accelerator, "any", form) in SHIPPED
    assert {a for a, e, f in SHIPPED if e == "any" and f == "bf16"} == {
        "a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "l40s", "rtx_pro_6000",
    }  # fmt: skip


@pytest.mark.parametrize("key", sorted(SHIPPED), ids="-".join)
def test_shipped_times_grow_with_tokens_and_widths(key):
    m, n, k = DOUBLINGS[:, None, None], WIDTHS[None, :, None], WIDTHS[None, None, :]
    once = seconds(key, m, n, k)
    assert (once > 1e-6).all()
    assert (seconds(key, 2 * m, n, k) >= 0.95 * once).all()
    # halving a width, as tensor parallelism does, does not cost time
    assert (seconds(key, m, n / 2, k) <= 1.03 * once).all()
    assert (seconds(key, m, n, k / 2) <= 1.03 * once).all()


@pytest.mark.parametrize("key", sorted(SHIPPED), ids="-".join)
def test_shipped_times_stay_above_the_data_sheet(key):
    m, n, k = DOUBLINGS[:, None, None], WIDTHS[None, :, None], WIDTHS[None, None, :]
    accelerator, _, form = key
    gpu = CATALOGUE.accelerator(accelerator)
    weights_s = n * k * FORMS[form].weight_bytes / gpu.hbm_bytes_per_s  # activations may come from a cache
    compute_s = gemm_cost(m, n, k, accelerator=gpu, form=form).compute_s
    assert (seconds(key, m, n, k) >= 0.9 * np.maximum(weights_s, compute_s)).all()


# Microseconds per call in CUDA graphs, AIConfigurator's collected kernel tables (commit 095f58a, Apache-2.0).
MEASURED = [
    ("h100_sxm", "vllm", "bf16", 1, 8192, 8192, 51.6),  # vLLM 0.24.0, torch.nn.functional.linear
    ("h100_sxm", "vllm", "bf16", 64, 1536, 7168, 12.8),
    ("h100_sxm", "trtllm", "bf16", 4096, 8192, 8192, 672.8),  # TensorRT-LLM 1.3.0rc20
    ("h100_sxm", "sglang", "fp8", 16, 4096, 4096, 12.0),  # SGLang 0.5.14, sgl_kernel fp8_scaled_mm
    ("h100_sxm", "sglang", "fp8_block", 8192, 8192, 8192, 884.6),  # DeepGEMM
    ("h200_sxm", "vllm", "bf16", 1024, 4096, 4096, 44.1),
    ("h200_sxm", "trtllm", "fp8_block", 16, 8192, 8192, 24.0),
    ("b200_sxm", "trtllm", "fp8_block", 1024, 4096, 4096, 21.7),  # DeepGEMM
    ("b200_sxm", "sglang", "nvfp4", 64, 8192, 8192, 13.3),  # FlashInfer CuTe DSL
    ("b200_sxm", "vllm", "nvfp4", 4096, 1536, 7168, 37.6),
]


@pytest.mark.parametrize(("accelerator", "engine", "form", "m", "n", "k", "microseconds"), MEASURED)
def test_measured_kernels_are_met_within_15_percent(accelerator, engine, form, m, n, k, microseconds):
    got = float(seconds((accelerator, engine, form), float(m), float(n), float(k)))
    assert got * 1e6 == pytest.approx(microseconds, rel=0.15)


def test_launches_of_eager_collection_are_taken_out():
    """vLLM's block FP8 was collected without graphs (60 us on H200 where SGLang takes 4): its kernels are DeepGEMM."""
    for accelerator in ("h200_sxm", "b200_sxm"):
        assert seconds((accelerator, "vllm", "fp8_block"), 1.0, 512.0, 512.0) < 9e-6
    # TensorRT-LLM's per-tensor FP8 derives scales in kernels of 8 us that static scales do not need
    assert seconds(("h100_sxm", "trtllm", "fp8"), 1.0, 512.0, 512.0) < 7e-6
