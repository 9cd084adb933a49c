"""Does a deployment fit, how many tokens of KV does it hold, and if it does not fit, why not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from trilemma.deployment.activations import activation_bytes
from trilemma.deployment.kv import KvFootprint, kv_bytes, kv_bytes_per_token_per_gpu, kv_footprint
from trilemma.deployment.spec import Deployment
from trilemma.deployment.validity import problems
from trilemma.deployment.weights import weight_bytes_per_gpu
from trilemma.units import show_bytes

__all__ = [
    "KvFootprint",
    "Memory",
    "fits",
    "kv_bytes",
    "kv_bytes_per_token_per_gpu",
    "kv_footprint",
    "memory",
    "why_not",
]

# How an engine turns its memory share into a KV pool: (share, hbm, weights, activations, framework) -> bytes.
# vLLM: share of the total, less everything else. SGLang: --mem-fraction-static of the total holds weights and pool,
# the rest activations and graphs. TensorRT-LLM: share of what is free after everything else. Keyed by the engine's
# name in the catalogue; engines without a rule of their own follow vLLM's.
POOL: Mapping[str, Callable[[float, float, float, float, float], float]] = MappingProxyType(
    {
        "vllm": lambda share, hbm, weights, active, framework: share * hbm - weights - active - framework,
        "sglang": lambda share, hbm, weights, active, framework: min(
            share * hbm - weights, hbm - weights - active - framework
        ),
        "trtllm": lambda share, hbm, weights, active, framework: share * (hbm - weights - active - framework),
    }
)

_FEW_SEQUENCES = 256  # vLLM's default on small GPUs: sampling buffers grow with max_num_seqs


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of the fullest GPU of a replica, in named terms; bytes throughout.

    `weights` by role. `available_bytes` is what the engine's rule leaves for KV (negative: short by so much) and
    `pool_bytes` what the pool takes: the same, or what `num_gpu_blocks` asks for. `num_blocks` blocks of
    `block_tokens` tokens per attention-DP rank, one of them vLLM's null block; where windows or state make tokens
    unequal, blocks are counted at `reference_tokens`, the context length the capacity is stated for.
    `required_tokens` must fit as one sequence. `problems` are reasons against the parallelism itself.
    """

    hbm_bytes: float
    weights: Mapping[str, float]
    activation_bytes: float
    framework_bytes: float
    available_bytes: float
    pool_bytes: float
    kv: KvFootprint
    block_tokens: int
    num_blocks: int
    data_ranks: int
    reference_tokens: int
    required_tokens: int
    problems: tuple[str, ...] = ()

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights on the GPU."""
        return sum(self.weights.values())

    @property
    def usable_blocks(self) -> int:
        """KV blocks of one attention-DP rank that sequences can use: all but the null block."""
        return max(0, self.num_blocks - 1)

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens the pool of one attention-DP rank holds, the null block left out."""
        return self.usable_blocks * self.block_tokens

    @property
    def kv_capacity_tokens_per_replica(self) -> int:
        """Tokens all pools of a replica hold: each attention-DP rank has its own."""
        return self.kv_capacity_tokens * self.data_ranks

    @property
    def kv_growing_bytes_per_token_per_gpu(self) -> float:
        """Bytes every token of context takes (layers without a window)."""
        return self.kv.growing_bytes_per_token

    @property
    def kv_window_terms(self) -> tuple[tuple[float, int], ...]:
        """(bytes per token, window in tokens) of the windowed layers."""
        return self.kv.window_terms

    @property
    def state_bytes_per_sequence(self) -> float:
        """Bytes of recurrent state a running sequence holds, whatever its length."""
        return self.kv.state_bytes_per_sequence

    @property
    def usable_pool_bytes(self) -> float:
        """The pool without its null block."""
        if not self.num_blocks:
            return 0.0
        return self.pool_bytes * (1 - 1 / self.num_blocks)

    def sequences_at(self, context_tokens: int) -> float:
        """Sequences of `context_tokens` tokens that one attention-DP rank holds at once (a fraction is a part)."""
        held = float(self.kv.bytes_at(context_tokens))
        return self.usable_pool_bytes / held if held else float("inf")

    @property
    def fits(self) -> bool:
        """Whether weights, activations and at least one sequence of `required_tokens` fit."""
        return not self.problems and self.short_bytes <= 0

    @property
    def short_bytes(self) -> float:
        """Bytes missing on the fullest GPU; at most 0 where it fits."""
        return float(self.kv.bytes_at(self.required_tokens)) - self.usable_pool_bytes + self._overdrawn

    @property
    def _overdrawn(self) -> float:
        """Bytes too many before any KV; with a pool of a stated size only what cannot be on the GPU at all."""
        if not self.pool_bytes:
            return max(0.0, -self.available_bytes)
        return max(0.0, self.weight_bytes + self.pool_bytes - self.hbm_bytes)


def memory(deployment: Deployment, *, reference_tokens: int | None = None) -> Memory:
    """The memory of one GPU of `deployment`, with vLLM's accounting (other engines' shares by `POOL`).

    Pool = gpu_memory_utilization x memory - weights - peak activations - framework (context, workspaces, CUDA
    graphs). `num_gpu_blocks` overrides the pool's size, as vLLM's --num-gpu-blocks-override does. One sequence of
    `max_model_len` must fit (vLLM refuses to start otherwise); without one, a sequence of `max_num_batched_tokens`,
    since nothing shorter could use the step. Capacity is stated at `reference_tokens` (say, a workload's mean context,
    where windows or recurrent state make short sequences dearer per token), else at `max_model_len` or the model's
    longest context, as vLLM's "GPU KV cache size" is; at most what the pool holds. Each attention-DP rank has a
    scheduler of its own, with `rank_knobs`.
    """
    model, knobs, engine = deployment.model, deployment.rank_knobs, deployment.engine
    mtp = deployment.speculative_mtp
    weights = weight_bytes_per_gpu(model, deployment.precision, deployment.parallelism, mtp=mtp)
    active = activation_bytes(model, deployment.parallelism, knobs)
    kv = kv_footprint(model, deployment.kv_bytes_per_element, deployment.parallelism, mtp=mtp)
    hbm = deployment.accelerator.hbm_bytes
    rule = POOL.get(engine.name, POOL["vllm"])
    available = rule(knobs.gpu_memory_utilization, hbm, sum(weights.values()), active, engine.framework_bytes)
    longest = reference_tokens or knobs.max_model_len or model.max_context_tokens or knobs.max_num_batched_tokens
    holds = kv.longest_tokens(max(0.0, available)) if knobs.num_gpu_blocks is None else longest
    reference = max(1, int(min(longest, holds)))
    block_bytes = float(kv.bytes_at(reference)) / reference * knobs.block_tokens
    if knobs.num_gpu_blocks is not None:
        blocks, pool = knobs.num_gpu_blocks, knobs.num_gpu_blocks * block_bytes
    else:
        pool = max(0.0, available)
        blocks = int(pool / block_bytes) if block_bytes else 0
    return Memory(
        hbm_bytes=hbm,
        weights=weights,
        activation_bytes=active,
        framework_bytes=engine.framework_bytes,
        available_bytes=available,
        pool_bytes=pool,
        kv=kv,
        block_tokens=knobs.block_tokens,
        num_blocks=blocks,
        data_ranks=deployment.parallelism.data,
        reference_tokens=reference,
        required_tokens=knobs.max_model_len or knobs.max_num_batched_tokens,
        problems=problems(model, deployment.parallelism),
    )


def fits(deployment: Deployment) -> bool:
    """Whether `deployment` can be started at all: see `memory`."""
    return memory(deployment).fits


def why_not(deployment: Deployment) -> str:
    """Why `deployment` does not fit: what is too big, by how much, and the smallest remedy; "" where it fits.

    Remedies named, each if it is enough by itself: a shorter max_model_len, fewer max_num_seqs, the lowest tensor
    parallelism inside the link domain, the mean bits per weight (a lower precision).
    """
    held = memory(deployment)
    if held.problems:
        return "; ".join(held.problems)
    if held.fits:
        return ""
    return f"{_shortage(deployment, held)}; {_remedy(deployment, held)}"


def _shortage(deployment: Deployment, held: Memory) -> str:
    knobs, name = deployment.knobs, deployment.accelerator.title
    budget = knobs.gpu_memory_utilization * held.hbm_bytes
    fixed = held.weight_bytes + held.activation_bytes + held.framework_bytes
    at = f"{knobs.gpu_memory_utilization:.0%} of {name}'s {show_bytes(held.hbm_bytes)}"
    if held.pool_bytes <= 0:
        return (
            f"{deployment.precision.name} weights {show_bytes(held.weight_bytes)} + activations "
            f"{show_bytes(held.activation_bytes)} + framework {show_bytes(held.framework_bytes)} = {show_bytes(fixed)} "
            f"per GPU against {show_bytes(budget)} ({at}): {show_bytes(-held.available_bytes)} too much"
        )
    needed = float(held.kv.bytes_at(held.required_tokens))
    return (
        f"KV pool {show_bytes(held.usable_pool_bytes)} per GPU is {show_bytes(held.short_bytes)} short of one sequence "
        f"of {held.required_tokens:,} tokens ({show_bytes(needed)}) beside weights {show_bytes(held.weight_bytes)} "
        f"in {show_bytes(budget)} ({at})"
    )


def _remedy(deployment: Deployment, held: Memory) -> str:
    knobs, parallelism = deployment.knobs, deployment.parallelism
    automatic = replace(knobs, num_gpu_blocks=None)
    found = []
    if knobs.max_model_len is not None and held.pool_bytes > 0:
        found.append(f"max_model_len {int(held.kv.longest_tokens(held.usable_pool_bytes)):,} would fit")
    fewer = replace(automatic, max_num_seqs=min(knobs.max_num_seqs, _FEW_SEQUENCES))
    if memory(replace(deployment, knobs=fewer)).fits:
        found.append(f"max_num_seqs {fewer.max_num_seqs} would fit")
    tensor = parallelism.tensor * 2
    while tensor * parallelism.data <= deployment.accelerator.link_domain_gpus:
        wider = replace(parallelism, tensor=tensor)
        if memory(replace(deployment, parallelism=wider, knobs=automatic)).fits:
            found.append(f"tensor parallelism {tensor} would fit")
            break
        tensor *= 2
    bits = _bits_that_fit(deployment, held)
    if bits is not None:
        found.append(f"weights of {bits:.1f} bits on average would fit")
    domain = deployment.accelerator.link_domain_gpus
    return ", or ".join(found) or f"no tensor parallelism inside the link domain of {domain} GPUs fits"


def _bits_that_fit(deployment: Deployment, held: Memory) -> float | None:
    """Bits per weight, averaged over the GPU's weights, that would close the gap; None below 4 or where it is none."""
    stored = weight_bytes_per_gpu(
        deployment.model,
        replace(deployment.precision, bits_per_weight=16.0),
        deployment.parallelism,
        mtp=deployment.speculative_mtp,
    )
    bits = 16 * (held.weight_bytes - held.short_bytes) / sum(stored.values())
    return bits if bits >= 4 else None
