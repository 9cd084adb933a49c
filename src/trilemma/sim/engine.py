"""What one engine's scheduler is allowed, and by which rules it decides: the simulator's side of an engine."""

from dataclasses import dataclass
from enum import IntEnum


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

    ValueError for zero capacity or max_num_batched_tokens < max_num_seqs, which vLLM refuses too.
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
        if min(self.max_num_seqs, self.block_tokens, self.kv_blocks, self.chunk_unit_tokens) < 1:
            raise ValueError(f"seats, block size, KV blocks and chunk unit must be at least 1, found {self}")
        if min(self.long_prefill_token_threshold, self.max_new_tokens) < 0 or not self.conservativeness > 0:
            raise ValueError(f"thresholds cannot be negative and conservativeness must be positive, found {self}")
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
