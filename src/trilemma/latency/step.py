"""Time of one forward pass of one replica, as named terms: what the simulator tabulates and what a person reads.

A step computes p prefill tokens and n decodes on every attention-DP rank (ranks are taken to be equally loaded, so one
rank is simulated and experts see the tokens of all of them). Terms that depend on p + n are evaluated on a grid and
interpolated; attention is affine in the context of the decodes, in what of it lies inside a window, and in the pairs of
the prefill chunks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trilemma.catalogue.efficiency import Efficiency, Roofline
from trilemma.catalogue.figure import Source, weakest
from trilemma.catalogue.model import Attention, AttentionKind
from trilemma.catalogue.precision import Role
from trilemma.deployment.kv import entry_bytes, layer_state_bytes
from trilemma.deployment.spec import Deployment
from trilemma.deployment.weights import Matrix, Split, matrices
from trilemma.errors import UnsupportedError
from trilemma.latency.formats import compute_format, expert_format
from trilemma.latency.operations import (
    ACTIVATION_BYTES,
    Cost,
    FloatArray,
    all_reduce,
    kernel,
    nothing,
    touched_experts,
)
from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.units import PS_PER_S

GRID_STEPS_PER_DOUBLING = 4


def _grid(largest: int) -> FloatArray:
    """Token counts from 1 to `largest`, every one up to 16 and then a few per doubling."""
    doublings = np.log2(max(largest, 2) / 16)
    tail = 16 * 2 ** np.linspace(0, max(doublings, 0), max(2, int(doublings * GRID_STEPS_PER_DOUBLING) + 1))
    points = np.concatenate([np.arange(1, 17), np.rint(tail)])
    return np.unique(points[points <= largest]).astype(np.float64)


def _caps(a: Attention) -> tuple[tuple[int, float], ...]:
    """(tokens of context that a part of a layer is capped at, entries it attends to per token up to there).

    A window is capped at its tokens. Sparse attention chooses among all entries until there are more than it takes;
    where an entry stands for `kv_compress_ratio` tokens, that is so many times later.
    """
    caps = [] if a.window_tokens is None else [(a.window_tokens, 1.0)]
    if a.index_topk:
        caps.append((a.index_topk * a.kv_compress_ratio, 1 / a.kv_compress_ratio))
    return tuple(caps)


def _capped_entries(a: Attention) -> float:
    """Entries a token attends to at most, in a window and by sparse choice; 0 where nothing caps the layer."""
    return sum(tokens * share for tokens, share in _caps(a))


def _whole_ps(seconds: float) -> int:
    """Seconds as whole picoseconds; work that takes any time takes one at least."""
    return max(1, round(seconds * PS_PER_S)) if seconds > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTerms:
    """One step's time by named term, seconds, and what binds each term."""

    seconds: Mapping[str, float]
    binds: Mapping[str, str]

    @property
    def total_s(self) -> float:
        """The step's time."""
        return sum(self.seconds.values())

    @property
    def bottleneck(self) -> str:
        """The resource most of the step waits for."""
        by_resource: dict[str, float] = {}
        for term, seconds in self.seconds.items():
            by_resource[self.binds[term]] = by_resource.get(self.binds[term], 0.0) + seconds
        return max(by_resource, key=by_resource.__getitem__)


class StepModel:
    """The latency model of one deployment: `table()` for the simulator, `terms()` for one step.

    Raises UnsupportedError for what it cannot price: pipeline parallelism, a number format the accelerator cannot
    multiply in even after falling back.
    """

    def __init__(self, deployment: Deployment, efficiency: Efficiency) -> None:
        self.deployment = deployment
        self.efficiency = efficiency
        if deployment.parallelism.pipeline > 1:
            raise UnsupportedError("pipeline parallelism is not simulated yet: use tensor or expert parallelism")
        self.accelerator = deployment.accelerator
        self.parallelism = deployment.parallelism
        self.format = compute_format(deployment.precision, deployment.accelerator)
        self.matrices = matrices(deployment.model, mtp=deployment.speculative_mtp)

    @property
    def crosses_domains(self) -> bool:
        """Whether a collective leaves the fast links of one domain."""
        return self.parallelism.stage_gpus > self.accelerator.link_domain_gpus

    @property
    def source(self) -> Source:
        """The weakest of what the step times rest on: collectives between domains are not measured."""
        return weakest(self.efficiency.source, Source.GUESS) if self.crosses_domains else self.efficiency.source

    # Rooflines -------------------------------------------------------------------------------------------------

    def _roofline(self, name: str, table: Mapping[str, Roofline]) -> Roofline:
        """The row of a format, or the nearest one measured on this accelerator."""
        order = {"int8": ("int8", "fp8", "bf16"), "fp4": ("fp4", "fp8", "bf16"), "w4a8": ("w4a8", "fp4", "fp8", "bf16")}
        for candidate in order.get(name, (name, "w4a16", "bf16")):
            if candidate in table:
                return table[candidate]
        return table["bf16"]

    def _ops_bf16(self) -> Roofline:
        return self.efficiency.kernels.gemm["bf16"]

    # Terms by number of tokens ---------------------------------------------------------------------------------

    def dense_gemms(self, tokens: FloatArray) -> Cost:
        """Every GEMM outside routed experts and the output head, (n,) tokens per attention-DP rank."""
        total = nothing(tokens.size)
        for m in self.matrices:
            if m.is_gemm and m.role not in {Role.EXPERT, Role.HEAD, Role.VISION}:
                seen = tokens * (self.parallelism.data if m.split is Split.STAGE else 1)
                total = total + self._gemm(m, seen)
        return total.scaled(self.efficiency.engine.gemm)

    def _gemm(self, m: Matrix, tokens: FloatArray) -> Cost:
        rows, cols, _ = m.shape_per_gpu(self.parallelism)
        quantised = m.role in self.deployment.precision.quantised
        name = self.format if quantised else "bf16"
        weight_bytes = rows * cols * self.deployment.precision.bytes_per_weight(m.role)
        return kernel(
            self.accelerator,
            self._roofline(name, self.efficiency.kernels.gemm),
            name,
            read_bytes=weight_bytes + tokens * (rows + cols) * ACTIVATION_BYTES,
            flops=2 * tokens * rows * cols,
            calls=m.layers,
        )

    def experts(self, tokens: FloatArray) -> Cost:
        """Routed experts: one fused kernel per MoE layer over the experts this GPU holds."""
        total = nothing(tokens.size)
        blocks: dict[int | None, list[Matrix]] = {}
        for m in self.matrices:
            if m.is_gemm and m.role is Role.EXPERT:
                blocks.setdefault(m.in_block, []).append(m)
        name = expert_format(self.deployment.precision, self.accelerator)
        row = self._roofline(name, self.efficiency.kernels.expert)
        multiplies_in = {"w4a16": "bf16", "w4a8": "fp8"}.get(name, name)
        everyone = tokens * self.parallelism.data
        for members in blocks.values():
            first = members[0]
            params = sum(m.rows * m.cols for m in members)
            share = 1 / first.ways(self.parallelism)
            touched = touched_experts(everyone, first.copies, first.used)
            routed = everyone * first.used
            weight_bytes = params * share * touched * self.deployment.precision.bytes_per_weight(Role.EXPERT)
            activation_bytes = routed * share * sum(m.rows + m.cols for m in members) * ACTIVATION_BYTES
            total = total + kernel(
                self.accelerator,
                row,
                multiplies_in,
                read_bytes=weight_bytes + activation_bytes,
                flops=2 * routed * params * share,
                calls=first.layers,
            )
        engine = self.efficiency.engine
        return total.scaled(engine.expert_4bit if name in {"w4a16", "w4a8"} else engine.expert)

    def head(self, sequences: FloatArray) -> Cost:
        """Output head for the sequences that sample a token, and the host's work for each of them."""
        total = nothing(sequences.size)
        for m in self.matrices:
            if m.role is Role.HEAD:
                total = total + self._gemm(m, sequences)
        host_s = sequences * self.efficiency.engine.sequence_s
        zero = np.zeros_like(host_s)
        return total + Cost(seconds=host_s, memory_s=zero, compute_s=zero, link_s=zero, fixed_s=host_s)

    def collectives(self, tokens: FloatArray) -> Cost:
        """An all-reduce after each mixer over TP and after each MLP over the stage, hidden vectors in BF16.

        With attention DP the MLP's exchange (gather and scatter, or dispatch and combine of experts) moves what a
        ring all-reduce of every rank's tokens would.
        """
        model, data = self.deployment.model, self.parallelism.data
        mixers = sum(b.count for b in model.blocks if b.attention is not None)
        mlps = sum(b.count for b in model.blocks if b.mlp is not None)
        message = tokens * model.hidden * ACTIVATION_BYTES
        total = nothing(tokens.size)
        for calls, gpus, size in (
            (mixers, self.parallelism.tensor, message),
            (mlps, self.parallelism.stage_gpus, message * data),
        ):
            total = total + all_reduce(
                self.accelerator,
                self.efficiency.kernels.collective,
                message_bytes=size,
                gpus=gpus,
                calls=calls,
                network_share=self.efficiency.network_share,
                network_s=self.efficiency.network_collective_s,
            )
        return total.scaled(self.efficiency.engine.collective)

    def elementwise(self, tokens: FloatArray) -> Cost:
        """Norms, rotary embedding, activations, residuals: hidden vectors streamed through HBM."""
        model, passes = self.deployment.model, self.efficiency.engine.elementwise_passes
        moved = tokens * model.hidden * ACTIVATION_BYTES * passes * model.layers
        seconds = moved / self.accelerator.hbm_bytes_per_s
        zero = np.zeros_like(seconds)
        return Cost(seconds=seconds, memory_s=seconds, compute_s=zero, link_s=zero, fixed_s=zero)

    def host(self, n: int) -> Cost:
        """Step and layer overhead: scheduling, launches, gaps between kernels."""
        engine = self.efficiency.engine
        seconds = np.full(n, engine.step_s + engine.layer_s * self.deployment.model.layers)
        zero = np.zeros(n)
        return Cost(seconds=seconds, memory_s=zero, compute_s=zero, link_s=zero, fixed_s=seconds)

    # Attention -------------------------------------------------------------------------------------------------

    @cached_property
    def _attentions(self) -> tuple[tuple[Attention, int], ...]:
        return tuple((b.attention, b.count) for b in self.deployment.model.blocks if b.attention is not None)

    @property
    def context_s(self) -> float:
        """Decode attention: seconds per context token, summed over the layers whose work grows with the context."""
        total = 0.0
        for a, layers in self._attentions:
            read_bytes, attends = self._growing_read(a)
            total += layers * self._decode_token_s(a, read_bytes, attends=attends)
        return total * self.efficiency.engine.attention

    @cached_property
    def _capped_s(self) -> Mapping[int, float]:
        """Decode attention: cap in tokens of context -> seconds per token up to there, over the layers it caps."""
        capped: dict[int, float] = {}
        for a, layers in self._attentions:
            for tokens, share in _caps(a):
                token_s = share * self._decode_token_s(a, self._entry_bytes(a), attends=1.0)
                capped[tokens] = capped.get(tokens, 0.0) + layers * token_s * self.efficiency.engine.attention
        return capped

    @property
    def window_tokens(self) -> int:
        """Tokens of context beyond which the capped layers' decode attention stops growing; 0 where none is capped.

        Windows, chunks and sparse choices cap it. Where layers differ (DeepSeek-V4 has a short window and a longer
        choice in one layer) this is the cap whose work costs most when it is reached; the work under any other is
        taken to be at its cap in every step, in `sequence_attention_s`, and so too long for shorter contexts.
        """
        return max(self._capped_s, key=lambda tokens: tokens * self._capped_s[tokens], default=0)

    @property
    def window_s(self) -> float:
        """Decode attention: seconds per context token up to `window_tokens`, over the layers that it caps."""
        return self._capped_s.get(self.window_tokens, 0.0)

    @property
    def sequence_attention_s(self) -> float:
        """Decode attention: seconds per sequence for states, and for work under a cap other than `window_tokens`."""
        total = sum(cap * token_s for cap, token_s in self._capped_s.items() if cap != self.window_tokens)
        for a, layers in self._attentions:
            state = layer_state_bytes(a, self.parallelism.tensor)
            state_s = 2 * state / (self.accelerator.hbm_bytes_per_s * self._ops_bf16().memory)
            total += layers * state_s * self.efficiency.engine.attention
        return total

    @property
    def decode_attention_fixed_s(self) -> float:
        """Decode attention kernels' fixed time per step."""
        layers = sum(count for _, count in self._attentions)
        return layers * self.efficiency.kernels.decode_attention.fixed_s * self.efficiency.engine.attention

    @property
    def pair_s(self) -> float:
        """Prefill attention: seconds per unit of A = sum q (2 s + q + 1), that is per half a (query, key) pair."""
        flops = 0.0
        for a, layers in self._attentions:
            _, attends = self._growing_read(a)
            index = 2 * a.index_heads * a.index_head_dim / a.kv_compress_ratio  # whole on every GPU
            flops += layers * (attends * self._pair_flops(a) + index) / 2
        peak = self.accelerator.flops["bf16"] * self.efficiency.kernels.prefill_attention.compute
        return flops / peak * self.efficiency.engine.attention * self.efficiency.engine.prefill

    def prefill_attention(self, tokens: FloatArray) -> Cost:
        """Prefill attention that grows with the tokens alone: windows, sparse choices, linear mixers, fixed time."""
        row = self.efficiency.kernels.prefill_attention
        flops = np.zeros_like(tokens)
        for a, layers in self._attentions:
            most = _capped_entries(a)
            if most:
                flops = flops + layers * tokens * np.minimum(tokens, most) * self._pair_flops(a)
            elif a.kind in {AttentionKind.LINEAR, AttentionKind.SSM}:
                state = layer_state_bytes(a, self.parallelism.tensor) / a.state_bytes_per_element
                flops = flops + layers * tokens * 4 * state
        compute_s = flops / (self.accelerator.flops["bf16"] * row.compute)
        fixed_s = np.full_like(tokens, row.fixed_s * sum(count for _, count in self._attentions))
        zero = np.zeros_like(tokens)
        cost = Cost(seconds=compute_s + fixed_s, memory_s=zero, compute_s=compute_s, link_s=zero, fixed_s=fixed_s)
        return cost.scaled(self.efficiency.engine.attention * self.efficiency.engine.prefill)

    def _entry_bytes(self, a: Attention) -> float:
        """KV bytes of one token in one layer on one GPU."""
        return entry_bytes(a, self.deployment.kv_bytes_per_element, self.parallelism.tensor)

    def _growing_read(self, a: Attention) -> tuple[float, float]:
        """(bytes a decode reads per context token, share of the context it attends to) of a layer.

        A sparse layer reads its index key of every token and attends to a choice of them; a compressed one keeps an
        entry per `kv_compress_ratio` tokens; linear mixers and states do not grow. What a window or a choice caps is
        not here but in `window_s`.
        """
        if a.kind in {AttentionKind.LINEAR, AttentionKind.SSM}:
            return 0.0, 0.0
        if a.index_topk:
            return a.index_key_bytes / a.kv_compress_ratio, 0.0
        if a.kv_compress_ratio > 1:
            return self._entry_bytes(a) / a.kv_compress_ratio, 1 / a.kv_compress_ratio
        if a.window_tokens is not None:
            return 0.0, 0.0
        return self._entry_bytes(a), 1.0

    def _decode_token_s(self, a: Attention, read_bytes: float, *, attends: float) -> float:
        """Seconds per context token of one layer: KV read against the multiplications of the share attended to."""
        row = self.efficiency.kernels.decode_attention
        memory_s = read_bytes / (self.accelerator.hbm_bytes_per_s * row.memory)
        heads = a.heads / self.parallelism.tensor
        if a.kind is AttentionKind.MLA:  # absorbed: every head multiplies the latent twice and the rotary key once
            flops = 2 * heads * (2 * a.kv_lora_rank + a.rope_head_dim)
            share = self.efficiency.kernels.prefill_attention.compute
        else:
            flops, share = self._pair_flops(a), row.compute
        compute_s = attends * flops / (self.accelerator.flops["bf16"] * share)
        p = row.blend
        return float((memory_s**p + compute_s**p) ** (1 / p))

    def _pair_flops(self, a: Attention) -> float:
        """FLOPs of one (query, key) pair in one layer on one GPU."""
        heads = a.heads / self.parallelism.tensor
        if a.kind is AttentionKind.MLA:
            return 2 * heads * (a.nope_head_dim + a.rope_head_dim + a.v_head_dim)
        return 2 * heads * (a.head_dim + (a.v_head_dim or a.head_dim))

    # Assembled -------------------------------------------------------------------------------------------------

    def by_tokens(self, tokens: FloatArray) -> dict[str, Cost]:
        """Terms that depend on the step's tokens p + n alone."""
        return {
            "GEMMs": self.dense_gemms(tokens),
            "experts": self.experts(tokens),
            "collectives": self.collectives(tokens),
            "elementwise": self.elementwise(tokens),
            "host": self.host(tokens.size),
        }

    def table(self) -> StepTable:
        """The model as integer tables for the deployment's scheduler bounds."""
        knobs = self.deployment.knobs
        budget = knobs.max_num_batched_tokens
        grid, every = _grid(budget), np.arange(budget + 1, dtype=np.float64)
        terms = sum((c.seconds for c in self.by_tokens(grid).values()), np.zeros_like(grid))
        extra = (self.efficiency.engine.prefill - 1) * self._prefill_scaled(grid) + self.prefill_attention(grid).seconds
        by_sequence_grid = _grid(knobs.max_num_seqs)
        sequences = np.arange(knobs.max_num_seqs + 1, dtype=np.float64)
        sampling = self.head(by_sequence_grid).seconds
        decode_s = np.where(sequences > 0, self.decode_attention_fixed_s + sequences * self.sequence_attention_s, 0.0)
        token_s = np.interp(every, grid, terms)
        prefill_s = np.where(every > 0, np.interp(every, grid, extra), 0.0)
        sequence_s = np.where(sequences > 0, np.interp(sequences, by_sequence_grid, sampling), 0.0)
        return StepTable(
            token_ps=np.maximum(1, np.rint(token_s * PS_PER_S)).astype(np.int64),
            prefill_ps=np.rint(np.maximum(prefill_s, 0) * PS_PER_S).astype(np.int64),
            decode_ps=np.rint(decode_s * PS_PER_S).astype(np.int64),
            sequence_ps=np.rint(sequence_s * PS_PER_S).astype(np.int64),
            context_ps=_whole_ps(self.context_s),
            window_tokens=self.window_tokens,
            window_ps=_whole_ps(self.window_s),
            pair_fp=round(self.pair_s * PS_PER_S * 2**FRACTION_BITS),
        )

    def _prefill_scaled(self, tokens: FloatArray) -> FloatArray:
        """Compute-bound part of a prefill's token terms, which the engine's prefill factor stretches."""
        return self.dense_gemms(tokens).compute_s + self.experts(tokens).compute_s

    def terms(
        self,
        *,
        prefill_tokens: int = 0,
        pair_sum: int = 0,
        decodes: int = 0,
        context_sum: int = 0,
        window_sum: int | None = None,
        sampling: int = 0,
    ) -> StepTerms:
        """One step by named term; arguments as in latency.table.StepTable.step_ps. At least one token is needed.

        `window_sum` None: that of decodes whose contexts are all the mean of `context_sum`.
        """
        tokens = np.array([float(prefill_tokens + decodes)])
        costs = self.by_tokens(tokens)
        if prefill_tokens:
            p = np.array([float(prefill_tokens)])
            stretch = (self.efficiency.engine.prefill - 1) * self._prefill_scaled(p)
            pairs = np.array([pair_sum * self.pair_s])
            zero = np.zeros(1)
            extra = Cost(seconds=stretch + pairs, memory_s=zero, compute_s=stretch + pairs, link_s=zero, fixed_s=zero)
            costs["prefill attention"] = self.prefill_attention(p) + extra
        if sampling:
            costs["output head"] = self.head(np.array([float(sampling)]))
        if decodes:
            inside = min(context_sum, decodes * self.window_tokens) if window_sum is None else window_sum
            read_s = np.array(
                [context_sum * self.context_s + inside * self.window_s + decodes * self.sequence_attention_s]
            )
            fixed = np.array([self.decode_attention_fixed_s])
            zero = np.zeros(1)
            costs["decode attention"] = Cost(
                seconds=read_s + fixed, memory_s=read_s, compute_s=zero, link_s=zero, fixed_s=fixed
            )
        kept = {name: cost for name, cost in costs.items() if cost.seconds[0] > 0}
        return StepTerms(
            seconds={name: float(cost.seconds[0]) for name, cost in kept.items()},
            binds={name: cost.binds for name, cost in kept.items()},
        )
