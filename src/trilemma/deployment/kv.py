"""What one sequence costs on one GPU: growing KV, capped windows, fixed recurrent state."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.model import Attention, AttentionKind, Model
from trilemma.deployment.matrix import ceil_div
from trilemma.deployment.spec import Parallelism
from trilemma.deployment.tensors import compressor_width, mtp_block
from trilemma.deployment.weights import stage_share


@dataclass(frozen=True, slots=True, kw_only=True)
class KvFootprint:
    """Bytes of one sequence on one GPU of the fullest pipeline stage.

    `growing_bytes_per_token` is paid for every token of context, each (bytes per token, window) of `window_terms` for
    at most `window` tokens, `state_bytes_per_sequence` once.
    """

    growing_bytes_per_token: float
    window_terms: tuple[tuple[float, int], ...] = ()
    state_bytes_per_sequence: float = 0.0

    @property
    def bytes_per_token(self) -> float:
        """Bytes of one more token while the context is still inside every window."""
        return self.growing_bytes_per_token + sum(held for held, _ in self.window_terms)

    @property
    def is_uniform(self) -> bool:
        """Whether every token costs the same: no window caps it and no state comes with the sequence."""
        return not self.window_terms and not self.state_bytes_per_sequence

    def bytes_at(self, context_tokens: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n,) tokens of context -> (n,) bytes; 0 tokens cost the state alone."""
        tokens = np.asarray(context_tokens, dtype=np.float64)
        held = self.growing_bytes_per_token * tokens + self.state_bytes_per_sequence
        for per_token, window in self.window_terms:
            held = held + per_token * np.minimum(tokens, window)
        return held

    def longest_tokens(self, pool_bytes: float) -> float:
        """The longest context whose bytes fit in `pool_bytes`; infinite where nothing grows, 0 where nothing fits."""
        left = pool_bytes - self.state_bytes_per_sequence
        if left <= 0:
            return 0.0
        start = 0
        for window in sorted({window for _, window in self.window_terms}):
            slope = self._slope_from(start)
            if left < slope * (window - start):
                return start + left / slope
            left -= slope * (window - start)
            start = window
        return start + left / self.growing_bytes_per_token if self.growing_bytes_per_token else float("inf")

    def _slope_from(self, tokens: int) -> float:
        return self.growing_bytes_per_token + sum(held for held, window in self.window_terms if window > tokens)


@lru_cache(maxsize=2048)
def kv_footprint(
    model: Model, kv_bytes_per_element: float, parallelism: Parallelism, *, mtp: bool = False
) -> KvFootprint:
    """The bytes of one sequence on one GPU of its attention-DP rank, on the fullest pipeline stage.

    GQA keeps max(1, kv_heads / tensor) heads; MLA's latent and rotary key, a compressed entry and the indexer's key
    are whole on every GPU of the tensor-parallel group. The short convolution's state is 16 bits wide; the partial
    windows of a compressed KV are float32 (vLLM, deepseek_v4 compressor state). With `mtp` the MTP layers' KV counts.
    """
    share = stage_share(model, parallelism)
    layers = [(b.attention, b.count * share) for b in model.blocks if b.attention is not None]
    if mtp and model.mtp_layers:
        mixer = mtp_block(model).attention
        layers += [(mixer, float(model.mtp_layers))] if mixer is not None else []
    growing, state, windowed = 0.0, 0.0, dict[int, float]()
    for attention, count in layers:
        entry = entry_bytes(attention, kv_bytes_per_element, parallelism.tensor)
        state += count * layer_state_bytes(attention, parallelism.tensor)
        if attention.kv_compress_ratio > 1:
            growing += count * (entry + attention.index_key_bytes) / attention.kv_compress_ratio
        elif attention.window_tokens is None:
            growing += count * (entry + attention.index_key_bytes)
        if attention.window_tokens is not None and entry:
            windowed[attention.window_tokens] = windowed.get(attention.window_tokens, 0.0) + count * entry
    terms = tuple((held, window) for window, held in sorted(windowed.items()))
    return KvFootprint(growing_bytes_per_token=growing, window_terms=terms, state_bytes_per_sequence=state)


def entry_bytes(a: Attention, kv_bytes_per_element: float, tensor: int) -> float:
    """Stored bytes of one token in one layer on one GPU, indexer key left out."""
    if a.shares_kv or a.kind in {AttentionKind.LINEAR, AttentionKind.SSM}:
        return 0.0
    if a.kv_entry_dims:
        return a.kv_entry_dims * kv_bytes_per_element
    if a.kind is AttentionKind.MLA:
        return (a.kv_lora_rank + a.rope_head_dim) * kv_bytes_per_element
    heads = max(1, ceil_div(a.kv_heads, tensor))
    return heads * (a.head_dim + a.v_head_dim) * kv_bytes_per_element


def layer_state_bytes(a: Attention, tensor: int) -> float:
    """Fixed bytes of one sequence in one layer on one GPU."""
    if a.kind is AttentionKind.LINEAR:
        recurrent = a.heads * a.head_dim * a.v_head_dim
        conv = (2 * a.kv_heads * a.head_dim + a.heads * a.v_head_dim) * (a.conv_kernel - 1)
    elif a.kind is AttentionKind.SSM:
        recurrent = a.heads * a.head_dim * a.state_dim
        shared = 2 * max(a.groups, tensor) * a.state_dim  # groups are copied once TP exceeds them
        conv = (a.heads * a.head_dim + shared) * (a.conv_kernel - 1)
    elif a.kv_compress_ratio > 1:
        width = compressor_width(a)
        per_token = 2 * width * (a.head_dim + a.index_head_dim) * 4
        return float(width * a.kv_compress_ratio * per_token)
    else:
        return 0.0
    return (recurrent * a.state_bytes_per_element + conv * 2) / tensor


def kv_bytes_per_token_per_gpu(model: Model, kv_bytes_per_element: float, parallelism: Parallelism) -> float:
    """KV bytes one token takes on one GPU while the context is inside every window (all of them, without windows).

    Llama-3.1-70B: 80 layers x 8 heads x (128 + 128) x 2 B = 327,680 on one GPU, an eighth at TP 8. DeepSeek-R1:
    61 x (512 + 64) x 2 B = 70,272 on each GPU at any TP.
    """
    return kv_footprint(model, kv_bytes_per_element, parallelism).bytes_per_token


def kv_bytes(
    model: Model, context_tokens: npt.ArrayLike, kv_bytes_per_element: float, parallelism: Parallelism
) -> npt.NDArray[np.float64]:
    """(n,) context lengths -> (n,) bytes one sequence of that length holds on one GPU, windows capped, state in."""
    return kv_footprint(model, kv_bytes_per_element, parallelism).bytes_at(context_tokens)
