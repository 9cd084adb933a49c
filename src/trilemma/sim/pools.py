"""Two pools of replicas, one that computes prompts and one that generates, and the way of the KV cache between them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.sim.checks import MOST_REPLICAS, MOST_TOKENS, flag, member, real, whole
from trilemma.sim.door import check_table
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Routing
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The way of a prompt's KV from its prefill replica to its decode replica.

    Its tokens, rounded up to blocks of `block_tokens`, take their bytes at `bytes_per_s` (infinity: no time), and
    arrive `latency_s` after the last byte was sent. `bytes_per_s` is what a prefill replica sends with all its
    accelerators; `one_at_a_time` its transfers share it one after the other, in the order in which they begin,
    otherwise they do not slow each other down. With `overlap` the KV of each chunk moves while later ones are computed,
    and that found in a prefix cache when the prompt begins, so that only the last chunk's is waited for; without, all
    of it moves after the prefill.

    ValueError for negative or not finite latency and bytes, a bandwidth that is not positive, or no block.
    """

    bytes_per_token: float
    bytes_per_s: float
    latency_s: float = 0.0
    block_tokens: int = 1
    one_at_a_time: bool = True
    overlap: bool = False

    def __post_init__(self) -> None:
        for name in ("bytes_per_token", "bytes_per_s", "latency_s"):
            object.__setattr__(self, name, real(name, getattr(self, name)))
        for name in ("one_at_a_time", "overlap"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        tokens = whole("block_tokens", self.block_tokens, least=1, most=MOST_TOKENS)
        object.__setattr__(self, "block_tokens", tokens)
        if not (np.isfinite([self.latency_s, self.bytes_per_token]).all() and self.bytes_per_s > 0):
            raise ValueError(f"latency and bytes must be finite and the bandwidth positive, found {self}")
        if min(self.latency_s, self.bytes_per_token) < 0:
            raise ValueError(f"latency and bytes cannot be negative, found {self}")

    @property
    def latency_ps(self) -> int:
        """Whole picoseconds from the last byte sent to the last one there."""
        return round(self.latency_s * PS_PER_S)

    def link_ps(self, tokens: IntArray) -> IntArray:
        """(n,) whole picoseconds for which the KV of so many tokens keeps a link busy.

        >>> Transfer(bytes_per_token=1000, bytes_per_s=1e9, block_tokens=16).link_ps(np.array([0, 1, 17])).tolist()
        [0, 16000000, 32000000]
        """
        moved = -(-tokens // self.block_tokens) * self.block_tokens
        busy_ps: IntArray = np.rint(moved * self.bytes_per_token / self.bytes_per_s * PS_PER_S).astype(np.int64)
        return busy_ps


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Equal replicas that do one half of the work.

    UnsupportedError for other rules than vLLM's, a cap on a prompt's tokens per step, or other routing than round robin
    and least outstanding, or more than MOST_REPLICAS; ValueError for no replicas or a table smaller than its limits.
    """

    table: StepTable
    limits: EngineLimits
    replicas: int = 1
    routing: Routing = Routing.ROUND_ROBIN

    def __post_init__(self) -> None:
        table, limits = self.table, self.limits
        object.__setattr__(self, "replicas", whole("replicas", self.replicas, least=1, most=MOST_REPLICAS))
        if limits.policy is not Policy.VLLM or limits.long_prefill_token_threshold:
            raise UnsupportedError(f"disaggregated pools schedule by vLLM's rules without a threshold, found {limits}")
        member("routing", self.routing, Routing)
        if self.routing not in (Routing.ROUND_ROBIN, Routing.LEAST_OUTSTANDING):
            raise UnsupportedError(
                f"disaggregated pools are routed round robin or by least outstanding, found {self.routing.name}"
            )
        check_table(table, limits)

    def fits(self, tokens: IntArray) -> npt.NDArray[np.bool_]:
        """(n,) whether so many tokens can be computed on an empty replica."""
        fits: npt.NDArray[np.bool_] = -(-tokens // self.limits.block_tokens) <= self.limits.kv_blocks
        return fits if self.limits.chunked_prefill else fits & (tokens <= self.limits.max_num_batched_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """A pool for prompts and one for answers, which may differ in everything, and what lies between.

    `first_token` says which side samples it: "decode" as vLLM does, "prefill" as SGLang and TensorRT-LLM do. The client
    gets it from the decode side either way. UnsupportedError for a prefix cache on the decode side (that of the prefill
    side is played), and for overlap where a prompt may be thrown out half computed.
    """

    prefill: Pool
    decode: Pool
    transfer: Transfer
    first_token: Literal["prefill", "decode"] = "decode"

    def __post_init__(self) -> None:
        if self.first_token not in ("prefill", "decode"):
            raise ValueError(f"the first token is sampled by 'prefill' or 'decode', found {self.first_token!r}")
        if self.decode.limits.prefix_caching:
            raise UnsupportedError("the decode pool gets every prompt from the prefill pool: it has no prefix cache")
        if self.transfer.overlap and not self.prefill.limits.reserve_full_isl:
            raise UnsupportedError("a chunk that was sent is not computed again: overlap needs reserve_full_isl")

    def fits(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """(n,) whether a request can run to its end on empty replicas, even thrown out just before its last token."""
        longest = requests.prompt_tokens + requests.output_tokens - 1
        return self.prefill.fits(requests.prompt_tokens) & self.decode.fits(longest)
