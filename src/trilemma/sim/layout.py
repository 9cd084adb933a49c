"""What the compiled functions share: names of array columns and totals, and the tuples of arrays they are given."""

from collections import namedtuple

import numpy as np
import numpy.typing as npt

from trilemma.sim.engine import Policy
from trilemma.sim.fleet import Routing

HISTOGRAM_SUBBINS = 512  # bins 0.2% wide
HISTOGRAM_BINS = 64 * HISTOGRAM_SUBBINS
FAR = np.int64(2**62)
LONGEST_STRETCH = 65_536  # steps taken at once: slope x k**2 stays inside 64 bits
WORD = 32  # bits used of a bitmap word
ROUNDS = 200_000  # of the kernel, between two looks at whether the user wants to stop: some 10 ms
MOST_NEW_TOKENS = 4096  # SGLang's CLIP_MAX_NEW_TOKENS
RETRACT_HEADROOM = 20  # SGLang's retract_decode_steps

VLLM = int(Policy.VLLM)
NO_EVICT = int(Policy.TRTLLM_NO_EVICT)
MAX_UTILIZATION = int(Policy.TRTLLM_MAX_UTILIZATION)
SGLANG = int(Policy.SGLANG)
SESSION_STICKY, LEAST_OUTSTANDING = int(Routing.SESSION_STICKY), int(Routing.LEAST_OUTSTANDING)
POWER_OF_TWO, PREFIX_AWARE = int(Routing.POWER_OF_TWO), int(Routing.PREFIX_AWARE)

# What kept the head of the queue out.
NOTHING, SEATS, TOKENS, KV, NO_REPLICA = range(5)

# Totals of a replica, all counted from the start of the run.
(STEPS, PREFILL_PS, DECODE_PS, END_PS, PEAK_BLOCKS, PREEMPTIONS, SEQUENCE_US, REFUSED, FAILED, PREFILL_TOKENS,
 DECODE_TOKENS) = range(11)  # fmt: skip
TOTALS = 11

# What a replica remembers between two looks at it.
(HEAD, TAIL, SEATS_LEFT, FREE, DECODES, BASE_SUM, STEP, NOW, PLANNED_AT, QUEUE, QUEUE_END, STACK, STACK_END, PARTIAL,
 PARTIAL_DONE, PARTIAL_TARGET, YOUNG, YOUNG_BASE, BLOCKED, QUIET, LATE, LATCH, RATIO, NEW_SUM, LONG_NEW,
 COHORTS, DECODED_AT, RELEASED, NEXT_SAMPLE, SAMPLE_ROWS, SAMPLE_PS, HALTED, SEEN, STACKED, ADMISSIONS, MID_STEP,
 SOONEST, SHORTEST) = range(38)  # fmt: skip
SCALARS = 38

# What the router looks at in every replica: requests sent and not answered, how many the last step answered and when,
# and when an answer can come at the earliest.
OUTSTANDING, ENDED, ENDED_AT, NEXT_CHANGE = range(4)
BOARD = 4

# A running sequence.
REQUEST, BASE, FINISH, BEFORE, AFTER, RING_NEXT, RING_PREV, UNITS = range(8)
COMPUTED = RING_NEXT  # before its first token: tokens computed before the step at hand

# What the router remembers: coming arrivals in the heap, the next of those that depend on nothing, the next replica
# event, requests counted by round robin, those waiting for a replica (first, last), replicas that serve, requests that
# clients have sent; where requests are dealt out beforehand the replicas played to the end and those begun; replicas
# looked at for the arrival at hand.
(WAITING_ANSWERS, NEXT_ARRIVAL, NEXT_EVENT, ROUTED, HOMELESS, HOMELESS_END, SERVING, SENT, PLAYED, BEGUN,
 LOOKED) = range(11)  # fmt: skip
EVENTS = 11
READY, DRAIN, FAIL = range(3)

# A row of samples.
(S_TIME, S_RUNNING, S_BLOCKS, S_PREFILL_TOKENS, S_DECODE_TOKENS, S_PREFILL_PS, S_DECODE_PS, S_PREEMPTED) = range(8)
SAMPLE_COLUMNS = 8

Rules = namedtuple(
    "Rules",
    "policy max_tokens max_seqs page blocks reserve_full whole_prompts chunk_unit max_new mixed asynchronous "
    "ratio_first ratio_least ratio_fall keeps_ratio caching unit window clients sessions feedback routing retry "
    "balance_abs balance_rel seed dynamic least_step_ps",
)
Prices = namedtuple("Prices", "token_ps prefill_ps decode_ps sequence_ps floor_ps context_ps window_ps pair_fp")
Load = namedtuple(
    "Load", "arrival entry prompt output link successor think_ps session home chain_offsets chain_ids chain_units"
)
Outcome = namedtuple("Outcome", "start first done preempted lost hits reason replica histogram totals samples")
State = namedtuple(
    "State",
    "scalars slots since seats late ring ring_bits window_ring window_bits crossing cohort_time cohort_count generated "
    "retracted_at completing nodes where held fail heap_time heap_request events serving event_ps event_kind "
    "event_replica first_arrivals admitted last_ready serves dead inside board",
)


def fill_last(rows: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> None:
    """Write the totals (TOTALS,) of a replica into rows of samples (k, SAMPLE_COLUMNS): it is empty and at its end."""
    for column, total in (
        (S_TIME, END_PS),
        (S_PREFILL_TOKENS, PREFILL_TOKENS),
        (S_DECODE_TOKENS, DECODE_TOKENS),
        (S_PREFILL_PS, PREFILL_PS),
        (S_DECODE_PS, DECODE_PS),
    ):
        rows[:, column] = totals[total]
