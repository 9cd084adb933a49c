"""What one engine's scheduler is allowed, and by which rules it decides: the simulator's side of an engine."""

from dataclasses import dataclass
from enum import IntEnum

from trilemma.errors import UnsupportedError
from trilemma.sim.checks import MOST_TOKENS, flag, member, real, whole

MOST_SEQS = 2**20  # sequences x microseconds of the whole clock are below 2**63
MOST_BLOCK_TOKENS = 2**20  # 2**40 KV blocks are below 2**63 tokens (see stretch.residue)
MOST_BLOCKS = 2**31  # of MOST_BLOCK_TOKENS: below 2**52 tokens
MOST_CACHED_BLOCKS = 2**30  # 64 bytes each where a prefix cache names them
MOST_CONSERVATIVENESS = 100.0

# Every whole number of EngineLimits: (the least, the most).
_WHOLE = {
    "max_num_batched_tokens": (1, MOST_TOKENS),
    "max_num_seqs": (1, MOST_SEQS),
    "block_tokens": (1, MOST_BLOCK_TOKENS),
    "kv_blocks": (1, MOST_BLOCKS),
    "chunk_unit_tokens": (1, MOST_TOKENS),
    "long_prefill_token_threshold": (0, MOST_TOKENS),
    "max_new_tokens": (0, MOST_TOKENS),
}
_FLAGS = ("reserve_full_isl", "async_scheduling", "chunked_prefill", "mixed_chunk", "ignore_eos", "prefix_caching")


class Policy(IntEnum):
    """Which engine's scheduling rules; the number is what the compiled kernels read."""

    VLLM = 0
    TRTLLM_NO_EVICT = 1
    TRTLLM_MAX_UTILIZATION = 2
    SGLANG = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """One engine's scheduler: tokens a step, sequences, usable KV blocks of `block_tokens` (null block out), rules.

    `max_num_batched_tokens` is TensorRT-LLM's `max_num_tokens` and SGLang's `chunked_prefill_size`.
    vLLM alone: `reserve_full_isl` admits a prompt only if all of it fits, `long_prefill_token_threshold` caps a
    prompt's tokens per step (0: no cap). `async_scheduling` schedules a step while the one before runs.
    `chunked_prefill` off computes prompts whole. TensorRT-LLM alone: chunks are multiples of `chunk_unit_tokens`.
    `max_new_tokens` is what clients ask for at most where the engine reserves by it (TensorRT-LLM's
    GUARANTEED_NO_EVICT, SGLang's admission); 0: they ask for what they get. SGLang alone: `mixed_chunk` adds decodes to
    prefill batches, `conservativeness` scales how much of the running requests' future it holds back, `ignore_eos`
    (fixed output lengths, as benchmarks send) holds back all of it.
    `prefix_caching` keeps computed prefix blocks where the requests name theirs.

    Whole numbers may be numpy's. ValueError for zero capacity, numbers that are not whole, a conservativeness outside
    (0, MOST_CONSERVATIVENESS], another engine's options or max_num_batched_tokens < max_num_seqs, which vLLM refuses
    too; UnsupportedError for more than the simulator holds: 2**31 tokens or blocks (2**30 blocks of a prefix cache),
    MOST_SEQS sequences, blocks of MOST_BLOCK_TOKENS.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    block_tokens: int
    kv_blocks: int
    policy: Policy = Policy.VLLM
    reserve_full_isl: bool = True
    long_prefill_token_threshold: int = 0
    async_scheduling: bool = False
    chunked_prefill: bool = True
    chunk_unit_tokens: int = 1
    max_new_tokens: int = 0
    mixed_chunk: bool = False
    conservativeness: float = 1.0
    ignore_eos: bool = False
    prefix_caching: bool = False

    def __post_init__(self) -> None:
        for name, (least, most) in _WHOLE.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), least=least, most=most))
        for name in _FLAGS:
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        member("policy", self.policy, Policy)
        object.__setattr__(self, "conservativeness", real("conservativeness", self.conservativeness))
        if not 0 < self.conservativeness <= MOST_CONSERVATIVENESS:
            raise ValueError(
                f"conservativeness must be positive and at most {MOST_CONSERVATIVENESS:g}, "
                f"found {self.conservativeness:g}"
            )
        if self.prefix_caching and self.kv_blocks > MOST_CACHED_BLOCKS:
            raise UnsupportedError(
                f"kv_blocks: with prefix_caching the simulator holds at most {MOST_CACHED_BLOCKS:,}, "
                f"found {self.kv_blocks:,}"
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs})"
            )
        only_vllm = self.long_prefill_token_threshold > 0 or not self.reserve_full_isl
        if only_vllm and self.policy is not Policy.VLLM:
            raise ValueError(f"reserve_full_isl and long_prefill_token_threshold are vLLM's, found {self}")
        if (self.mixed_chunk or self.ignore_eos) and self.policy is not Policy.SGLANG:
            raise ValueError(f"mixed_chunk and ignore_eos are SGLang's, found {self}")
        if max(self.chunk_unit_tokens, self.block_tokens if self.policy is Policy.SGLANG else 1) > (
            self.max_num_batched_tokens
        ):
            raise ValueError(f"a step must hold one chunk unit and, under SGLang, one KV page, found {self}")

    @property
    def new_token_ratio_ppm(self) -> tuple[int, int, int]:
        """SGLang's share of running requests' remaining tokens held back, in millionths: (first, least, fall a step).

        `new_token_ratio` starts at 0.7 x conservativeness (at most 1) and falls to 14% of that over 600 decode steps.
        """
        if self.ignore_eos:
            return 1_000_000, 1_000_000, 0
        first = min(1_000_000, round(700_000 * self.conservativeness))
        least = first * 14 // 100
        return first, least, (first - least) // 600
