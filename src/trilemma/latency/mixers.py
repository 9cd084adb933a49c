"""Attention of a whole model in the affine form that the simulator reads: per step, per sequence, per token of context.

Every kind of layer is priced by its own kernels at the typical lengths of the load and made affine there (see
`latency.attention`); sums over layers follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trilemma.catalogue.model import Attention, AttentionKind
from trilemma.deployment.kv import entry_bytes, layer_state_bytes
from trilemma.deployment.matrix import ceil_div
from trilemma.deployment.spec import Deployment
from trilemma.latency import attention as kernel
from trilemma.latency.attention import KernelCall, decode_affine, prefill_affine
from trilemma.latency.kernels import Kernels
from trilemma.latency.operations import FloatArray

STATE_SHARE = 0.8  # of HBM bandwidth, for recurrent states whose kernels are not measured (Mamba-2)
UNMEASURED_SHARE = 0.5  # of peak FLOP/s, for attention that no table has


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """Lengths around which attention is made affine: new tokens of a prompt, its cached prefix, and the context of a
    decode half way through its output."""

    prompt_tokens: float = 2048.0
    prefix_tokens: float = 0.0
    context_tokens: float = 2304.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Decode attention: `fixed_s` (n,) at the grid of sequences, seconds per context token, and per context token up
    to a cap of so many tokens."""

    fixed_s: FloatArray
    context_s: float
    capped_s: Mapping[int, float] = field(default_factory=dict)

    def __add__(self, other: "Decoding") -> "Decoding":
        caps = self.capped_s.keys() | other.capped_s.keys()
        return Decoding(
            fixed_s=self.fixed_s + other.fixed_s,
            context_s=self.context_s + other.context_s,
            capped_s={cap: self.capped_s.get(cap, 0.0) + other.capped_s.get(cap, 0.0) for cap in sorted(caps)},
        )

    def times(self, layers: float) -> "Decoding":
        """`layers` such layers."""
        return Decoding(
            fixed_s=self.fixed_s * layers,
            context_s=self.context_s * layers,
            capped_s={cap: s * layers for cap, s in self.capped_s.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilling:
    """Prefill attention: `fixed_s` (n,) at the grid of tokens, seconds per unit of A = sum q (2 s + q + 1)."""

    fixed_s: FloatArray
    pair_s: float

    def __add__(self, other: "Prefilling") -> "Prefilling":
        return Prefilling(fixed_s=self.fixed_s + other.fixed_s, pair_s=self.pair_s + other.pair_s)

    def times(self, layers: float) -> "Prefilling":
        """`layers` such layers."""
        return Prefilling(fixed_s=self.fixed_s * layers, pair_s=self.pair_s * layers)


class Mixers:
    """Prices the attention of one deployment; `sequences` and `tokens` are the grids of a step's decodes and prefill
    tokens."""

    def __init__(self, deployment: Deployment, kernels: Kernels, typical: Typical) -> None:
        self.deployment = deployment
        self.kernels = kernels
        self.typical = typical
        self.gpus = deployment.parallelism.tensor
        self.kv_form = "fp8" if deployment.kv_bytes_per_element <= 1 else "bf16"

    def decoding(self, sequences: FloatArray) -> Decoding:
        """All layers' decode attention; pipeline stages work on a micro-batch each, side by side."""
        stages = self.deployment.parallelism.pipeline
        each = sequences / stages
        total = Decoding(fixed_s=np.zeros_like(sequences), context_s=0.0)
        for block in self.deployment.model.blocks:
            if block.attention is not None:
                total = total + self._decode(block.attention, each).times(block.count)
        share = 1 / stages  # of a round's context, in each micro-batch
        capped_s = {cap: share * s for cap, s in total.capped_s.items()}
        return Decoding(fixed_s=total.fixed_s, context_s=share * total.context_s, capped_s=capped_s)

    def prefilling(self, tokens: FloatArray) -> Prefilling:
        """All layers' prefill attention; pipeline stages work on a micro-batch each, side by side."""
        stages = self.deployment.parallelism.pipeline
        each = tokens / stages
        total = Prefilling(fixed_s=np.zeros_like(tokens), pair_s=0.0)
        for block in self.deployment.model.blocks:
            if block.attention is not None:
                total = total + self._prefill(block.attention, each).times(block.count)
        return Prefilling(fixed_s=total.fixed_s, pair_s=total.pair_s / stages)

    def _seconds(self, call: KernelCall, form: str) -> FloatArray:
        return call.base.seconds * self.kernels.stretch(call.operation, form, call.features)

    def _heads(self, heads: int) -> int:
        return max(1, ceil_div(heads, self.gpus))

    # Decode ------------------------------------------------------------------------------------------------------

    def _decode(self, a: Attention, sequences: FloatArray) -> Decoding:
        if a.kind is AttentionKind.LINEAR:
            return self._gated_delta_decode(a, sequences)
        if a.kind is AttentionKind.SSM:
            state_bytes = 2 * layer_state_bytes(a, self.gpus)
            state_s = state_bytes / (self.kernels.accelerator.hbm_bytes_per_s * STATE_SHARE)
            return Decoding(fixed_s=sequences * state_s + kernel.LAUNCH_S, context_s=0.0)
        if a.kv_compress_ratio > 1 or (a.index_topk and a.kind is not AttentionKind.MLA):
            return self._unmeasured_decode(a, sequences)
        cap = a.window_tokens

        def seconds(n: FloatArray, context: FloatArray) -> FloatArray:
            return self._seconds(self._decode_call(a, n, context), self.kv_form)

        fixed_s, slope = decode_affine(seconds, sequences, self.typical.context_tokens, cap_tokens=cap)
        if cap is not None:
            return Decoding(fixed_s=fixed_s, context_s=0.0, capped_s={cap: slope})
        return Decoding(fixed_s=fixed_s, context_s=slope)

    def _decode_call(self, a: Attention, n: FloatArray, context: FloatArray) -> KernelCall:
        accelerator, kv_bytes = self.kernels.accelerator, self.deployment.kv_bytes_per_element
        if a.kind is AttentionKind.MLA and a.index_topk:
            return kernel.decode_dsa(
                n, context, heads=self._heads(a.heads), index_heads=a.index_heads, kv_bytes_per_element=kv_bytes,
                accelerator=accelerator, index_topk=a.index_topk, kv_lora_rank=a.kv_lora_rank,
                rope_head_dim=a.rope_head_dim,
            )  # fmt: skip
        if a.kind is AttentionKind.MLA:
            return kernel.decode_mla(
                n, context, heads=self._heads(a.heads), kv_bytes_per_element=kv_bytes, accelerator=accelerator,
                kv_lora_rank=a.kv_lora_rank, rope_head_dim=a.rope_head_dim,
            )  # fmt: skip
        return kernel.decode_attention(
            n, context, heads=self._heads(a.heads), kv_heads=self._heads(a.kv_heads or 1), head_dim=a.head_dim,
            kv_bytes_per_element=kv_bytes, accelerator=accelerator, window=a.window_tokens,
        )  # fmt: skip

    def _gated_delta_decode(self, a: Attention, sequences: FloatArray) -> Decoding:
        call = kernel.gdn_decode(
            sequences, key_heads=self._heads(a.kv_heads), value_heads=self._heads(a.heads),
            accelerator=self.kernels.accelerator, key_dim=a.head_dim, value_dim=a.v_head_dim,
            state_bytes_per_element=a.state_bytes_per_element,
        )  # fmt: skip
        return Decoding(fixed_s=self._seconds(call, "bf16"), context_s=0.0)

    def _unmeasured_decode(self, a: Attention, sequences: FloatArray) -> Decoding:
        """Compressed and sparse caches that no kernel table has: entries read at a usual share of the bandwidth."""
        accelerator = self.kernels.accelerator
        bytes_per_s = accelerator.hbm_bytes_per_s * STATE_SHARE
        entry = entry_bytes(a, self.deployment.kv_bytes_per_element, self.gpus) / a.kv_compress_ratio
        growing = a.index_key_bytes / a.kv_compress_ratio if a.index_topk else entry
        caps = {a.index_topk * a.kv_compress_ratio: entry / bytes_per_s} if a.index_topk else {}
        if a.window_tokens is not None:
            per_token = entry * a.kv_compress_ratio / bytes_per_s
            caps[a.window_tokens] = caps.get(a.window_tokens, 0.0) + per_token
        return Decoding(
            fixed_s=np.full_like(sequences, kernel.LAUNCH_S), context_s=growing / bytes_per_s, capped_s=caps
        )

    # Prefill -----------------------------------------------------------------------------------------------------

    def _prefill(self, a: Attention, tokens: FloatArray) -> Prefilling:
        if a.kind is AttentionKind.LINEAR:
            return self._gated_delta_prefill(a, tokens)
        if a.kind is AttentionKind.SSM or a.kv_compress_ratio > 1 or (a.index_topk and a.kind is not AttentionKind.MLA):
            return self._unmeasured_prefill(a, tokens)
        form = self._prefill_form(a)

        def seconds(new: FloatArray, prefix: FloatArray, prompts: FloatArray) -> FloatArray:
            return self._seconds(self._prefill_call(a, new, prefix, prompts), form)

        if a.window_tokens is not None:  # of the tokens, hardly of the pairs
            new = np.minimum(tokens, self.typical.prompt_tokens)
            prefix = np.full_like(new, self.typical.prefix_tokens)
            return Prefilling(fixed_s=seconds(new, prefix, tokens / new), pair_s=0.0)
        fixed_s, slope = prefill_affine(seconds, tokens, self.typical.prompt_tokens, self.typical.prefix_tokens)
        return Prefilling(fixed_s=fixed_s, pair_s=slope)

    def _prefill_form(self, a: Attention) -> str:
        """Kernels with the KV cache in FP8 alone, or that multiply in FP8 too: MLA's all do, TensorRT-LLM's where the
        weights are quantised."""
        if self.kv_form == "bf16":
            return "bf16"
        multiplies = self.deployment.engine.name == "trtllm" and self.deployment.precision.quantised
        return "fp8" if a.kind is AttentionKind.MLA or multiplies else "fp8kv"

    def _prefill_call(self, a: Attention, new: FloatArray, prefix: FloatArray, prompts: FloatArray) -> KernelCall:
        accelerator, heads = self.kernels.accelerator, self._heads(a.heads)
        if a.kind is AttentionKind.MLA and a.index_topk:
            return kernel.prefill_dsa(
                new, prefix, prompts=prompts, heads=heads, index_heads=a.index_heads, accelerator=accelerator,
                index_topk=a.index_topk, kv_lora_rank=a.kv_lora_rank, rope_head_dim=a.rope_head_dim,
            )  # fmt: skip
        if a.kind is AttentionKind.MLA:
            return kernel.prefill_mla(
                new, prefix, prompts=prompts, heads=heads, accelerator=accelerator,
                qk_head_dim=a.nope_head_dim + a.rope_head_dim, v_head_dim=a.v_head_dim,
            )  # fmt: skip
        return kernel.prefill_attention(
            new, prefix, prompts=prompts, heads=heads, kv_heads=self._heads(a.kv_heads or 1), head_dim=a.head_dim,
            kv_bytes_per_element=self.deployment.kv_bytes_per_element, accelerator=accelerator,
            window=a.window_tokens,
        )  # fmt: skip

    def _gated_delta_prefill(self, a: Attention, tokens: FloatArray) -> Prefilling:
        new = np.minimum(tokens, self.typical.prompt_tokens)
        call = kernel.gdn_prefill(
            new, prompts=tokens / new, key_heads=self._heads(a.kv_heads), value_heads=self._heads(a.heads),
            accelerator=self.kernels.accelerator, key_dim=a.head_dim, value_dim=a.v_head_dim,
        )  # fmt: skip
        return Prefilling(fixed_s=self._seconds(call, "bf16"), pair_s=0.0)

    def _unmeasured_prefill(self, a: Attention, tokens: FloatArray) -> Prefilling:
        heads, rate = a.heads / self.gpus, self.kernels.accelerator.flops["bf16"] * UNMEASURED_SHARE
        if a.kind is AttentionKind.SSM:
            state = layer_state_bytes(a, self.gpus) / a.state_bytes_per_element
            return Prefilling(fixed_s=tokens * 4 * state / rate + kernel.LAUNCH_S, pair_s=0.0)
        pair = 2 * heads * (a.head_dim + (a.v_head_dim or a.head_dim))
        index = 2 * a.index_heads * a.index_head_dim / a.kv_compress_ratio
        most = (a.window_tokens or 0) + a.index_topk
        attended = 0.0 if a.index_topk else 1 / a.kv_compress_ratio
        fixed_s = kernel.LAUNCH_S + tokens * np.minimum(self.typical.prompt_tokens, most) * pair / rate
        return Prefilling(fixed_s=fixed_s, pair_s=(attended * pair + index) / 2 / rate)
