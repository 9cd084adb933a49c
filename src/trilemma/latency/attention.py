"""Attention kernels of one layer on one GPU: base times and features by shape, and their affine forms.

A kernel's time is its base (a data-sheet roofline plus a launch) times what measurements made of it: the surface of its
`operation` in `trilemma.catalogue.surfaces`, read at `features`. Heads are those on the GPU. The measured kernels ran
again and again on one KV cache, so that small ones found it in the L2 cache; surfaces hold the time from HBM, as in
a model whose layers take turns (see benchmarks/surfaces/attention.py).

| operation | what is in it | formats |
|---|---|---|
| decode_attention, decode_window_attention | one token per sequence over its KV | bf16, fp8: the KV cache |
| prefill_attention, prefill_window_attention | causal, new tokens over prefix and themselves | bf16; fp8kv: KV alone in FP8; fp8: multiplied in FP8 too |
| decode_mla | absorbed attention over latents; the products with the KV up-projection before and after it are GEMMs apart | bf16, fp8: the KV cache |
| prefill_mla | attention over expanded keys and values; the KV up-projection (of a prefix too) is a GEMM apart | bf16, fp8 |
| decode_dsa, prefill_dsa | indexer scores, choice and sparse attention; no projections, neither the indexer's | bf16, fp8: the KV cache |
| gdn_decode, gdn_prefill | short convolution and gated delta rule; no projections | bf16 |
"""  # noqa: E501

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.surfaces import Surface
from trilemma.latency.operations import ACTIVATION_BYTES, Cost, FloatArray

LAUNCH_S = 6e-6  # the shortest attention kernels measured take 8 to 12 us
LEAST_TILE = 64  # query rows a prefill kernel multiplies at least
INDEX_DIM = 128  # of DeepSeek sparse attention: elements of an index key, one byte each, and 4 bytes of scale
INDEX_KEY_BYTES = 132
CONVOLUTION_TAPS = 4  # of gated delta net


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCall:
    """Calls of one kernel, (n,) shapes: whose surface stretches it, its base time, and where to read the surface."""

    operation: str
    base: Cost
    features: tuple[FloatArray, ...]

    def seconds(self, surface: Surface | None) -> FloatArray:
        """(n,) seconds; None: the base time, where nothing is measured."""
        return self.base.seconds if surface is None else self.base.seconds * np.exp(surface.log_ratio(*self.features))


def _call(
    operation: str, features: tuple[npt.ArrayLike, ...], *, memory_s: FloatArray, compute_s: FloatArray
) -> KernelCall:
    """Memory and compute time one after the other and a launch; features are logarithms of at least 1/1000."""
    seconds = memory_s + compute_s + LAUNCH_S
    logs = np.broadcast_arrays(seconds, *(np.log2(np.maximum(np.asarray(f, np.float64), 1e-3)) for f in features))[1:]
    return KernelCall(
        operation=operation,
        base=Cost(
            seconds=seconds,
            memory_s=memory_s,
            compute_s=compute_s,
            link_s=np.zeros_like(seconds),
            fixed_s=np.full_like(seconds, LAUNCH_S),
        ),
        features=tuple(logs),
    )


def _arrays(*values: npt.ArrayLike) -> tuple[FloatArray, ...]:
    return tuple(np.broadcast_arrays(*(np.asarray(v, np.float64) for v in values)))


# Decode --------------------------------------------------------------------------------------------------------------


def decode_attention(
    sequences: npt.ArrayLike,
    context: npt.ArrayLike,
    *,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    head_dim: npt.ArrayLike,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    window: npt.ArrayLike | None = None,
) -> KernelCall:
    """One new token for each of `sequences` (n,), which have `context` (n,) tokens each, itself included (their mean).

    `window` caps the tokens read (sliding or chunked attention).

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv_bytes_per_element": 2}
    >>> call = decode_attention(64, 4096, **shape, accelerator=load_catalogue().accelerator("h100_sxm"))
    >>> [round(float(call.base.seconds) * 1e6), *(float(f) for f in call.features)]  # 1.07 GB at 3.35 TB/s
    [331, 12.0, 9.0, 2.0, 7.0]
    """
    n, tokens, h, kv, d, cap = _arrays(
        sequences, context, heads, kv_heads, head_dim, np.inf if window is None else window
    )
    read = np.minimum(tokens, cap)
    moved_bytes = n * (read * 2 * kv * d * kv_bytes_per_element + 2 * h * d * ACTIVATION_BYTES)
    features: tuple[npt.ArrayLike, ...] = (read, n * kv, h / kv, d)
    if window is not None:
        features = (*features, np.maximum(tokens / cap, 1.0))
    return _call(
        "decode_attention" if window is None else "decode_window_attention",
        features,
        memory_s=moved_bytes / accelerator.hbm_bytes_per_s,
        compute_s=4 * n * read * h * d / accelerator.flops["bf16"],
    )


def decode_attention_s(
    sequences: npt.ArrayLike,
    context: npt.ArrayLike,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    surface: Surface | None,
    window: int | None = None,
) -> FloatArray:
    """Seconds (n,) of `decode_attention`."""
    return decode_attention(
        sequences,
        context,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_bytes_per_element=kv_bytes_per_element,
        accelerator=accelerator,
        window=window,
    ).seconds(surface)


def decode_mla(
    sequences: npt.ArrayLike,
    context: npt.ArrayLike,
    *,
    heads: npt.ArrayLike,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
) -> KernelCall:
    """Absorbed multi-head latent attention: every head reads the same latent and rotary key of each context token."""
    n, tokens, h = _arrays(sequences, context, heads)
    wide = kv_lora_rank + rope_head_dim
    moved_bytes = n * (tokens * wide * kv_bytes_per_element + h * (wide + kv_lora_rank) * ACTIVATION_BYTES)
    return _call(
        "decode_mla",
        (tokens, n, h),
        memory_s=moved_bytes / accelerator.hbm_bytes_per_s,
        compute_s=2 * n * tokens * h * (wide + kv_lora_rank) / accelerator.flops["bf16"],
    )


def decode_dsa(
    sequences: npt.ArrayLike,
    context: npt.ArrayLike,
    *,
    heads: npt.ArrayLike,
    index_heads: npt.ArrayLike,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    index_topk: int = 2048,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
) -> KernelCall:
    """Sparse latent attention: an index key of every context token is scored, `index_topk` tokens are attended to."""
    n, tokens, h, scored = _arrays(sequences, context, heads, index_heads)
    chosen = np.minimum(tokens, index_topk)
    wide = kv_lora_rank + rope_head_dim
    read_bytes = tokens * INDEX_KEY_BYTES * (scored > 0) + chosen * wide * kv_bytes_per_element
    flops = tokens * 2 * scored * INDEX_DIM + chosen * 2 * h * (wide + kv_lora_rank)
    return _call(
        "decode_dsa",
        (tokens, n, h),
        memory_s=n * (read_bytes + h * (wide + kv_lora_rank) * ACTIVATION_BYTES) / accelerator.hbm_bytes_per_s,
        compute_s=n * flops / accelerator.flops["bf16"],
    )


def gdn_decode(
    sequences: npt.ArrayLike,
    *,
    key_heads: npt.ArrayLike,
    value_heads: npt.ArrayLike,
    accelerator: Accelerator,
    key_dim: int = 128,
    value_dim: int = 128,
    state_bytes_per_element: float = 4,
) -> KernelCall:
    """One token for each sequence: its recurrent state is read and written, whatever its context."""
    n, k, v = _arrays(sequences, key_heads, value_heads)
    state_bytes = 2 * v * key_dim * value_dim * state_bytes_per_element
    channels = 2 * k * key_dim + v * value_dim
    moved_bytes = n * (state_bytes + channels * (2 * CONVOLUTION_TAPS + 1) * ACTIVATION_BYTES)
    return _call(
        "gdn_decode",
        (n, v),
        memory_s=moved_bytes / accelerator.hbm_bytes_per_s,
        compute_s=6 * n * v * key_dim * value_dim / accelerator.flops["bf16"],
    )


# Prefill -------------------------------------------------------------------------------------------------------------


def mean_keys(new_tokens: FloatArray, prefix: FloatArray, window: FloatArray | None = None) -> FloatArray:
    """Keys a new token attends to on average: the prefix and half of the new tokens, at most `window`.

    >>> mean_keys(np.array([1.0, 4.0]), np.array([6.0, 0.0])).tolist()
    [7.0, 2.5]
    >>> mean_keys(np.array([4.0]), np.array([0.0]), np.array([2.0])).tolist()  # 1, 2, 2, 2
    [1.75]
    """
    keys = prefix + (new_tokens + 1) / 2
    if window is None:
        return keys
    growing = np.clip(window - prefix, 0, new_tokens)  # tokens that still see fewer keys than the window
    return (growing * (prefix + (growing + 1) / 2) + (new_tokens - growing) * window) / new_tokens


def prefill_attention(
    new_tokens: npt.ArrayLike,
    prefix: npt.ArrayLike,
    *,
    prompts: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    head_dim: npt.ArrayLike,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    window: npt.ArrayLike | None = None,
) -> KernelCall:
    """`prompts` (n,) prompts or chunks of `new_tokens` (n,) tokens each, after `prefix` (n,) tokens that are cached.

    Kernels were measured without prefix; with one, a token's mean keys take the place of half its prompt. The base
    multiplies in BF16 whatever the format: what FP8 gains is in its surface.

    >>> from trilemma.catalogue.catalogue import load_catalogue
    >>> shape = {"prompts": 1, "heads": 32, "kv_heads": 8, "head_dim": 128, "kv_bytes_per_element": 2}
    >>> call = prefill_attention(8192, 0, **shape, accelerator=load_catalogue().accelerator("h100_sxm"))
    >>> [round(float(call.base.seconds) * 1e6), *(round(float(f), 2) for f in call.features)]
    [612, 13.0, 18.0, 2.0, 7.0]
    """
    q, s, n, h, kv, d = _arrays(new_tokens, prefix, prompts, heads, kv_heads, head_dim)
    capped = None if window is None else _arrays(window, q)[0]
    keys = mean_keys(q, s, capped)
    cached = s if capped is None else np.minimum(s, capped)
    moved = 2 * h * q * ACTIVATION_BYTES + 2 * kv * (q * ACTIVATION_BYTES + cached * kv_bytes_per_element)
    return _call(
        "prefill_attention" if window is None else "prefill_window_attention",
        (2 * keys - 1, n * h * q, h / kv, d),
        memory_s=n * d * moved / accelerator.hbm_bytes_per_s,
        compute_s=4 * n * h * d * np.maximum(q, LEAST_TILE) * keys / accelerator.flops["bf16"],
    )


def prefill_attention_s(
    new_tokens: npt.ArrayLike,
    prefix: npt.ArrayLike,
    *,
    prompts: npt.ArrayLike,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kv_bytes_per_element: float,
    accelerator: Accelerator,
    surface: Surface | None,
    window: int | None = None,
) -> FloatArray:
    """Seconds (n,) of `prefill_attention`."""
    return prefill_attention(
        new_tokens,
        prefix,
        prompts=prompts,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_bytes_per_element=kv_bytes_per_element,
        accelerator=accelerator,
        window=window,
    ).seconds(surface)


def prefill_mla(
    new_tokens: npt.ArrayLike,
    prefix: npt.ArrayLike,
    *,
    prompts: npt.ArrayLike,
    heads: npt.ArrayLike,
    accelerator: Accelerator,
    qk_head_dim: int = 192,
    v_head_dim: int = 128,
) -> KernelCall:
    """Multi-head attention over keys and values expanded from the latents, those of the prefix too."""
    q, s, n, h = _arrays(new_tokens, prefix, prompts, heads)
    keys = mean_keys(q, s)
    moved = h * (qk_head_dim + v_head_dim) * ACTIVATION_BYTES * (q + q + s)
    return _call(
        "prefill_mla",
        (2 * keys - 1, n * h * q, h),
        memory_s=n * moved / accelerator.hbm_bytes_per_s,
        compute_s=2 * n * h * (qk_head_dim + v_head_dim) * np.maximum(q, LEAST_TILE) * keys / accelerator.flops["bf16"],
    )


def prefill_dsa(
    new_tokens: npt.ArrayLike,
    prefix: npt.ArrayLike,
    *,
    prompts: npt.ArrayLike,
    heads: npt.ArrayLike,
    index_heads: npt.ArrayLike,
    accelerator: Accelerator,
    index_topk: int = 2048,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
) -> KernelCall:
    """Every new token scores the index keys before it and attends to `index_topk` latents at most, absorbed."""
    q, s, n, h, scored = _arrays(new_tokens, prefix, prompts, heads, index_heads)
    keys, chosen = mean_keys(q, s), mean_keys(q, s, np.full_like(q, index_topk))
    wide = 2 * kv_lora_rank + rope_head_dim
    pair_flops = keys * 2 * scored * INDEX_DIM + chosen * 2 * h * wide
    moved = q * h * wide * ACTIVATION_BYTES + (q + s) * (INDEX_KEY_BYTES + wide)
    return _call(
        "prefill_dsa",
        (2 * keys - 1, n * q, h),
        memory_s=n * moved / accelerator.hbm_bytes_per_s,
        compute_s=n * np.maximum(q, LEAST_TILE) * pair_flops / accelerator.flops["bf16"],
    )


def gdn_prefill(
    new_tokens: npt.ArrayLike,
    *,
    prompts: npt.ArrayLike,
    key_heads: npt.ArrayLike,
    value_heads: npt.ArrayLike,
    accelerator: Accelerator,
    key_dim: int = 128,
    value_dim: int = 128,
) -> KernelCall:
    """`prompts` (n,) chunks of `new_tokens` (n,) tokens each; linear in tokens, whatever came before."""
    q, n, k, v = _arrays(new_tokens, prompts, key_heads, value_heads)
    channels = 2 * k * key_dim + v * value_dim
    moved_bytes = n * (q * (4 * channels + 2 * v * value_dim) * ACTIVATION_BYTES + 8 * v * key_dim * value_dim)
    return _call(
        "gdn_prefill",
        (q, n, v),
        memory_s=moved_bytes / accelerator.hbm_bytes_per_s,
        compute_s=n * np.maximum(q, LEAST_TILE) * v * 12 * key_dim * value_dim / accelerator.flops["bf16"],
    )


# Affine forms --------------------------------------------------------------------------------------------------------


def decode_affine(
    seconds: Callable[[FloatArray, FloatArray], FloatArray],
    sequences: FloatArray,
    typical_context: float,
    *,
    cap_tokens: float | None = None,
) -> tuple[FloatArray, float]:
    """A decode kernel as fixed_s (n,) >= 0 at the grid `sequences` (n,) plus one slope in seconds per context token:

        seconds(n, c) = fixed_s[n] + slope * n * min(c, cap_tokens), exact at c = typical_context.

    `seconds` takes (sequences, mean context), both (n,). The slope is that of large batches (the upper quarter of the
    grid) between half and twice the typical context; it is lower where a batch would otherwise have a negative fixed
    time. `cap_tokens`: the kernel stops growing there (a window, or a sparse choice alone).

    >>> fixed_s, slope = decode_affine(lambda n, c: 5e-6 + n * 1e-7 + n * c * 1e-9, np.array([1.0, 64.0]), 1024)
    >>> (fixed_s * 1e6).round(3).tolist(), round(slope * 1e9, 6)
    ([5.1, 11.4], 1.0)
    """
    cap = np.inf if cap_tokens is None else cap_tokens
    large = sequences[sequences >= sequences.max() / 4]
    high = min(2 * typical_context, cap)
    low = min(typical_context, cap) / 2
    sizes = (sequences.size, large.size, large.size)
    contexts = np.repeat([typical_context, high, low], sizes)
    at, at_high, at_low = np.split(seconds(np.concatenate([sequences, large, large]), contexts), np.cumsum(sizes)[:2])
    rise = at_high - at_low
    seen = sequences * min(typical_context, cap)
    slope = float(np.median(rise / (large * (high - low))))
    slope = float(np.clip(slope, 0.0, np.min(at / seen)))
    return np.maximum(at - slope * seen, 0.0), slope


def prefill_affine(
    seconds: Callable[[FloatArray, FloatArray, FloatArray], FloatArray],
    tokens: FloatArray,
    typical_prompt: float,
    typical_prefix: float = 0.0,
) -> tuple[FloatArray, float]:
    """A prefill kernel as fixed_s (p,) >= 0 at the grid `tokens` (p,) plus one slope in seconds per unit of
    A = sum over chunks of q (2 s + q + 1), q new tokens after s: twice the (query, key) pairs.

    A step of p tokens is p / typical_prompt prompts of `typical_prompt` tokens after `typical_prefix`, or one chunk of
    p where p is less; there the form is exact. `seconds` takes (new tokens, prefix, prompts), all (p,). The slope is
    that of the largest step: how its time changes with the prompts' length at the same tokens, or with the prefix where
    most keys are the prefix's.

    >>> time_s = lambda q, s, n: 4e-6 + n * q * 1e-8 + n * q * (2 * s + q + 1) * 1e-12
    >>> fixed_s, slope = prefill_affine(time_s, np.array([16.0, 8192.0]), 1024)
    >>> (fixed_s * 1e6).round(3).tolist(), round(slope * 1e12, 6)
    ([4.16, 85.92], 1.0)
    """
    new = np.minimum(tokens, typical_prompt)
    prefix, prompts = np.full_like(new, typical_prefix), tokens / new
    units = tokens * (2 * prefix + new + 1)
    largest = np.array([tokens.max()])
    chunk = np.minimum(largest, typical_prompt)
    if typical_prefix > chunk[0] / 2:
        ends = [(chunk, np.array([typical_prefix * share]), largest / chunk) for share in (0.5, 1.5)]
    else:
        ends = [(chunk * share, np.array([typical_prefix]), largest / (chunk * share)) for share in (0.5, 2.0)]
    every = [np.concatenate(parts) for parts in zip((new, prefix, prompts), *ends, strict=True)]
    found = seconds(*every)
    at, low_s, high_s = found[:-2], float(found[-2]), float(found[-1])
    low, high = (float(largest[0] * (2 * end[1] + end[0] + 1)[0]) for end in ends)
    slope = float(np.clip((high_s - low_s) / (high - low), 0.0, np.min(at / units)))
    return np.maximum(at - slope * units, 0.0), slope
