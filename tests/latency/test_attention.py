"""Attention kernels: laws of base times and surfaces, measured examples, and what the affine forms promise."""

import numpy as np
import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import load_surfaces
from trilemma.latency.attention import (
    decode_affine,
    decode_attention,
    decode_attention_s,
    decode_dsa,
    decode_mla,
    gdn_decode,
    gdn_prefill,
    mean_keys,
    prefill_affine,
    prefill_attention,
    prefill_attention_s,
    prefill_dsa,
    prefill_mla,
)

ACCELERATORS = load_catalogue().accelerators
SEQUENCES = 2.0 ** np.arange(0, 10)
CONTEXTS = 2.0 ** np.arange(7, 16)
PROMPTS = 2.0 ** np.arange(5, 15)
GROUPS = ({"heads": 32, "kv_heads": 8, "head_dim": 128}, {"heads": 8, "kv_heads": 1, "head_dim": 128})
ENGINES = [(a, e) for a in ("h100_sxm", "h200_sxm", "b200_sxm") for e in ("vllm", "sglang", "trtllm", "any")]
SLACK = 0.9  # a longer shape may be faster by so much: kernels are chosen by shape


def surface_of(operation, accelerator, engine, form):
    return load_surfaces()[operation, accelerator, engine, form]


def lowest_step(seconds, axis):
    """The least ratio of a time to the longest before it along an axis."""
    return float(np.min(seconds / np.maximum.accumulate(seconds, axis=axis)))


def decode_calls(accelerator):
    n, tokens = SEQUENCES[:, None], CONTEXTS[None]
    yield "decode_attention", decode_attention(n, tokens, **GROUPS[0], kv_bytes_per_element=2, accelerator=accelerator)
    yield "decode_attention", decode_attention(n, tokens, **GROUPS[1], kv_bytes_per_element=2, accelerator=accelerator)
    yield "decode_mla", decode_mla(n, tokens, heads=16, kv_bytes_per_element=2, accelerator=accelerator)
    yield (
        "decode_dsa",
        decode_dsa(n[:9], tokens, heads=16, index_heads=64, kv_bytes_per_element=2, accelerator=accelerator),
    )


def prefill_calls(accelerator):
    q, n = PROMPTS[:, None], SEQUENCES[None, :6]
    for shape in GROUPS:
        call = prefill_attention(q, 0, prompts=n, **shape, kv_bytes_per_element=2, accelerator=accelerator)
        yield "prefill_attention", call
    yield "prefill_mla", prefill_mla(q, 0, prompts=n, heads=16, accelerator=accelerator)
    yield "gdn_prefill", gdn_prefill(q, prompts=n, key_heads=8, value_heads=16, accelerator=accelerator)


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "b200_sxm", "mi300x"])
def test_base_times_rise_with_every_dimension(name):
    accelerator = ACCELERATORS[name]
    for operation, call in (*decode_calls(accelerator), *prefill_calls(accelerator)):
        assert call.operation == operation
        assert (call.base.seconds > 0).all()
        for axis in (0, 1):
            assert (np.diff(call.base.seconds, axis=axis) > 0).all(), operation
    heads = np.array([1.0, 2.0, 8.0, 64.0])
    more = decode_attention(
        8, 2048, heads=heads, kv_heads=1, head_dim=128, kv_bytes_per_element=2, accelerator=accelerator
    )
    assert (np.diff(more.base.seconds) > 0).all()


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_measured_times_rise_with_batch_and_context(name, engine):
    for operation, call in decode_calls(ACCELERATORS[name]):
        if operation == "decode_dsa" and engine in {"vllm", "any"}:
            continue  # few rows: its small batches were measured without CUDA graphs
        seconds = call.seconds(surface_of(operation, name, engine, "bf16"))
        assert np.isfinite(seconds).all()
        assert (seconds > 2e-6).all()
        assert min(lowest_step(seconds, axis) for axis in (0, 1)) > SLACK, operation


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_measured_times_rise_with_prompts_and_their_length(name, engine):
    for operation, call in prefill_calls(ACCELERATORS[name]):
        surface = load_surfaces().get((operation, name, engine, "bf16"))
        if surface is None:
            continue  # no engine's own rows: "any" is tested
        seconds = call.seconds(surface)
        assert (seconds > 2e-6).all()
        assert min(lowest_step(seconds, axis) for axis in (0, 1)) > SLACK, operation


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_more_heads_take_longer(name, engine):
    accelerator = ACCELERATORS[name]
    kv_heads = np.array([1.0, 2.0, 4.0, 8.0])
    decode = decode_attention(
        32, 4096, heads=8 * kv_heads, kv_heads=kv_heads, head_dim=128, kv_bytes_per_element=2, accelerator=accelerator
    ).seconds(surface_of("decode_attention", name, engine, "bf16"))
    prefill = prefill_attention(
        2048,
        0,
        prompts=2,
        heads=8 * kv_heads,
        kv_heads=kv_heads,
        head_dim=128,
        kv_bytes_per_element=2,
        accelerator=accelerator,
    ).seconds(surface_of("prefill_attention", name, engine, "bf16"))
    assert (np.diff(decode) > 0).all()
    assert (np.diff(prefill) > 0).all()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_prefix_costs_its_pairs(engine):
    accelerator, surface = ACCELERATORS["h100_sxm"], surface_of("prefill_attention", "h100_sxm", engine, "bf16")

    def seconds(q, s):
        return float(
            prefill_attention_s(
                q, s, prompts=1, **GROUPS[0], kv_bytes_per_element=2, accelerator=accelerator, surface=surface
            )
        )

    assert seconds(2048, 0) < seconds(2048, 2048) < seconds(2048, 8192)
    # four chunks of a prompt against the prompt at once: as many pairs, more launches, narrower tiles
    chunks = sum(seconds(2048, s) for s in (0, 2048, 4096, 6144))
    assert 0.9 < chunks / seconds(8192, 0) < 1.3


@pytest.mark.parametrize(("name", "engine"), [e for e in ENGINES if e[1] != "any"])
def test_a_window_caps_the_time(name, engine):
    shape = {"heads": 64, "kv_heads": 8, "head_dim": 64, "kv_bytes_per_element": 2, "accelerator": ACCELERATORS[name]}
    full = surface_of("decode_attention", name, engine, "bf16")
    windowed = surface_of("decode_window_attention", name, engine, "bf16")
    at = np.array([4096.0, 8192.0, 16384.0])
    capped = decode_attention_s(64, at, **shape, window=128, surface=windowed)
    assert capped.max() / capped.min() < 1.2
    assert (decode_attention_s(64, at, **shape, surface=full) > 3 * capped).all()
    surface = surface_of("prefill_window_attention", name, engine, "bf16")
    short, long = (
        float(prefill_attention_s(q, 0, prompts=8192 / q, **shape, window=128, surface=surface)) for q in (1024, 8192)
    )
    assert long / short < 1.35  # linear in tokens, whatever the prompts' length


def test_mean_keys_counts_every_pair():
    for q, s, w in ((5, 0, 3), (5, 2, 4), (5, 9, 4), (3, 1, 100)):
        counted = sum(min(s + i + 1, w) for i in range(q)) / q
        assert mean_keys(np.array([q]), np.array([s]), np.array([w]))[0] == pytest.approx(counted)


def test_linear_attention_forgets_the_context():
    accelerator = ACCELERATORS["h100_sxm"]
    surface = surface_of("gdn_decode", "h100_sxm", "vllm", "bf16")
    seconds = gdn_decode(SEQUENCES, key_heads=16, value_heads=32, accelerator=accelerator).seconds(surface)
    assert (np.diff(seconds) > 0).all()
    sparse = prefill_dsa(4096, 32768, prompts=1, heads=16, index_heads=64, accelerator=accelerator).base.seconds
    dense = prefill_dsa(
        4096, 32768, prompts=1, heads=16, index_heads=64, index_topk=10**6, accelerator=accelerator
    ).base.seconds
    assert sparse < dense


# Examples: medians of AIConfigurator's kernel tables (Apache-2.0), CUDA graphs, beyond the L2 cache ------------------

DECODE = [  # accelerator, engine and version, KV format, sequences, context, heads, KV heads, head dim, microseconds
    ("h100_sxm", "vllm 0.24.0", "bf16", 64, 4096, 32, 8, 128, 353.6),
    ("h200_sxm", "sglang 0.5.14", "bf16", 32, 8192, 64, 8, 128, 247.3),
    ("b200_sxm", "trtllm 1.3.0rc20", "fp8", 128, 4096, 8, 1, 128, 32.0),
    ("h100_sxm", "trtllm 1.3.0rc20", "bf16", 128, 2048, 8, 1, 128, 69.0),
    ("l40s", "vllm 0.24.0", "bf16", 64, 4096, 32, 8, 128, 1496.5),
    ("a100_sxm", "vllm 0.14.0", "bf16", 64, 4096, 32, 8, 128, 681.6),
]
PREFILL = [  # accelerator, engine and version, format, prompts, tokens, heads, KV heads, head dim, window, microseconds
    ("h100_sxm", "vllm 0.24.0", "bf16", 1, 8192, 32, 8, 128, None, 912.2),
    ("h200_sxm", "sglang 0.5.14", "fp8", 8, 2048, 8, 1, 128, None, 136.9),
    ("b200_sxm", "trtllm 1.3.0rc20", "bf16", 4, 4096, 32, 8, 128, None, 647.3),
    ("gb200", "vllm 0.24.0", "fp8kv", 1, 8192, 64, 8, 128, None, 792.6),
    ("h100_sxm", "sglang 0.5.14", "bf16", 16, 2048, 64, 8, 64, 128, 740.0),
]
TOLERANCE = 0.15


@pytest.mark.parametrize("row", DECODE)
def test_decode_as_measured(row):
    name, engine, form, sequences, context, heads, kv_heads, head_dim, measured_us = row
    seconds = decode_attention_s(
        sequences,
        context,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_bytes_per_element=1 if form == "fp8" else 2,
        accelerator=ACCELERATORS[name],
        surface=surface_of("decode_attention", name, engine.split()[0], form),
    )
    assert float(seconds) * 1e6 == pytest.approx(measured_us, rel=TOLERANCE)


@pytest.mark.parametrize("row", PREFILL)
def test_prefill_as_measured(row):
    name, engine, form, prompts, tokens, heads, kv_heads, head_dim, window, measured_us = row
    operation = "prefill_attention" if window is None else "prefill_window_attention"
    seconds = prefill_attention_s(
        tokens,
        0,
        prompts=prompts,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_bytes_per_element=2 if form == "bf16" else 1,
        accelerator=ACCELERATORS[name],
        window=window,
        surface=surface_of(operation, name, engine.split()[0], form),
    )
    assert float(seconds) * 1e6 == pytest.approx(measured_us, rel=TOLERANCE)


def test_latent_and_linear_attention_as_measured():
    def us(call, *key):
        return float(call.seconds(surface_of(call.operation, *key))) * 1e6

    h100, b200 = ACCELERATORS["h100_sxm"], ACCELERATORS["b200_sxm"]
    # SGLang 0.5.14, 64 sequences of 8,192 tokens, 16 heads; TensorRT-LLM 1.3.0rc20, 128 of 8,192, FP8 cache
    call = decode_mla(64, 8192, heads=16, kv_bytes_per_element=2, accelerator=h100)
    assert us(call, "h100_sxm", "sglang", "bf16") == pytest.approx(220, rel=TOLERANCE)
    call = decode_mla(128, 8192, heads=16, kv_bytes_per_element=1, accelerator=b200)
    assert us(call, "b200_sxm", "trtllm", "fp8") == pytest.approx(105, rel=TOLERANCE)
    # SGLang 0.5.14, one prompt of 8,192 tokens, 16 heads
    call = prefill_mla(8192, 0, prompts=1, heads=16, accelerator=b200)
    assert us(call, "b200_sxm", "sglang", "fp8") == pytest.approx(306, rel=TOLERANCE)
    # vLLM 0.24.0, 256 sequences, 32 value heads: convolution 10.7 us and delta rule 363.9 us
    call = gdn_decode(256, key_heads=16, value_heads=32, accelerator=h100)
    assert us(call, "h100_sxm", "vllm", "bf16") == pytest.approx(374.6, rel=TOLERANCE)


# Affine forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "engine"), ENGINES)
@pytest.mark.parametrize("context", [300.0, 3000.0, 30000.0])
def test_the_affine_decode_is_exact_at_the_typical_context(name, engine, context):
    surface = surface_of("decode_attention", name, engine, "bf16")

    def seconds(n, c):
        return decode_attention_s(
            n, c, **GROUPS[1], kv_bytes_per_element=2, accelerator=ACCELERATORS[name], surface=surface
        )

    fixed_s, slope = decode_affine(seconds, SEQUENCES, context)
    assert slope >= 0
    assert (fixed_s >= 0).all()
    exact = seconds(SEQUENCES, np.full_like(SEQUENCES, context))
    assert fixed_s + slope * SEQUENCES * context == pytest.approx(exact)
    # and near it, where batches are large enough to be read at memory's pace
    for share in (0.8, 1.25):
        near = seconds(SEQUENCES, np.full_like(SEQUENCES, share * context))
        assert fixed_s + slope * SEQUENCES * share * context == pytest.approx(near, rel=0.12)


def test_the_affine_decode_under_a_window_grows_only_inside_it():
    surface = surface_of("decode_window_attention", "b200_sxm", "vllm", "fp8")

    def seconds(n, c):
        return decode_attention_s(
            n,
            c,
            heads=64,
            kv_heads=8,
            head_dim=64,
            kv_bytes_per_element=1,
            accelerator=ACCELERATORS["b200_sxm"],
            window=1024,
            surface=surface,
        )

    fixed_s, slope = decode_affine(seconds, SEQUENCES, 6000.0, cap_tokens=1024)
    assert slope > 0
    assert fixed_s + slope * SEQUENCES * 1024 == pytest.approx(seconds(SEQUENCES, np.full_like(SEQUENCES, 6000.0)))


def test_the_affine_decode_never_starts_below_nothing():
    """A kernel that gets cheaper per token as it grows: the slope gives way, the fixed time does not go negative."""
    fixed_s, slope = decode_affine(lambda n, c: 1e-9 * (n * c) ** 1.5, np.array([1.0, 16.0]), 100.0)
    assert (fixed_s >= 0).all()
    assert slope == pytest.approx(1e-9 * 100.0**0.5)


@pytest.mark.parametrize(("name", "engine"), ENGINES)
@pytest.mark.parametrize(("prompt", "prefix"), [(1024.0, 0.0), (8192.0, 0.0), (2048.0, 6000.0)])
def test_the_affine_prefill_is_exact_at_the_typical_prompt(name, engine, prompt, prefix):
    surface = surface_of("prefill_attention", name, engine, "bf16")
    tokens = np.array([16.0, 256.0, 1024.0, 2048.0, 8192.0])

    def seconds(q, s, n):
        return prefill_attention_s(
            q, s, prompts=n, **GROUPS[1], kv_bytes_per_element=2, accelerator=ACCELERATORS[name], surface=surface
        )

    fixed_s, slope = prefill_affine(seconds, tokens, prompt, prefix)
    assert slope > 0
    assert (fixed_s >= 0).all()
    q = np.minimum(tokens, prompt)
    units = tokens * (2 * prefix + q + 1)
    exact = seconds(q, np.full_like(q, prefix), tokens / q)
    assert fixed_s + slope * units == pytest.approx(exact)
