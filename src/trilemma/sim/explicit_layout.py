"""What the explicit kernel's functions share: names of array columns and tuples of arrays."""

from collections import namedtuple

MILLION = 1_000_000

# What a rank remembers. The order list (HEAD, TAIL) is the order of admission; the queue is a list with its head in
# QUEUE, or with priorities a heap with its root there; NEWS are those who came but are not seen yet; STACKED counts the
# evicted ones in the queue.
(HEAD, TAIL, SEATS_LEFT, TOP, FREE, RUNNING, DECODES, CONTEXT_SUM, PARTIALS, LATE, QUEUE, QUEUE_END, WAITING, NEWS,
 NEWS_END, UNANSWERED, PROMPTS_INSIDE, LATCH, RATIO, LOOKED, HELD_BACK_BY, BEGAN, ENDED, ADMITTED, FRESH, MODE,
 DECODING, DECODE_SPAN, CHUNKS, EVICTED, CHUNK_SUM, PAIRS, COMPLETING, PLANNED, STACKED) = range(35)  # fmt: skip
RANK_SCALARS = 35
# What the group remembers.
NOW, NEXT, RELEASED, EVENTS, ASSIGNED, STUCK, SAMPLES, NEXT_SAMPLE, SAMPLE_PS = range(9)
GROUP_SCALARS = 9
SAMPLE_COLUMNS = 8
# MODE: which decodes run in a step: none, all of them with their full span, or those with tokens in `span`.
NONE_RUN, ALL_RUN, SOME_RUN = range(3)

Rules = namedtuple(
    "Rules",
    "policy max_tokens max_seqs page blocks reserve_full threshold asynchronous whole_prompts chunk_unit max_new mixed "
    "ratio_first ratio_least ratio_fall keeps_ratio caching unit ranks shared by_priority clients sessions span "
    "draft_ps speculating seed",
)
Prices = namedtuple(
    "Prices", "token_ps prefill_ps decode_ps sequence_ps floor_ps context_ps window_ps pair_fp window thresholds"
)
Load = namedtuple("Load", "arrival table chain_ids")
Outcome = namedtuple("Outcome", "seen histogram totals samples")
State = namedtuple("State", "group scalars tokens seats notes nodes where held")

# Columns of Load.table, (n, 8) int64.
PROMPT, OUTPUT, PRIORITY, SUCCESSOR, THINK_PS, FOLLOWS, CHAIN, UNITS = range(8)
LOAD_COLUMNS = 8
# Columns of Outcome.seen, (n, 8) int64. DONE is the time of the last token for those who wait to be resumed.
START, FIRST, DONE, PREEMPTED, LOST, HITS, REASON, RANK = range(8)
SEEN_COLUMNS = 8
# Columns of State.notes, (n, 4) int32: links of queues and heaps, tokens generated and draws made before an eviction.
LEFT_LINK, RIGHT_LINK, GENERATED, DRAWS = range(4)
NOTES = 4
# State.tokens, (ranks, rows, seats) int32: what the loops over decodes read. EMITS is 1 for decodes, 0 for the others.
ROOM, LEFT, EMITS, BASE, SPAN, LENGTH = range(6)
TOKEN_ROWS = 6
# State.seats, (ranks, rows, seats + 1) int64: the rest of what is known of a sequence, and lists of seats.
(REQUEST, COMPUTED, TARGET, BEFORE, AFTER, ORDER, LAST, OWN_UNITS, DRAWN, KEY, FREE_SEATS, LATE_SEATS, PARTIAL_SEATS,
 CHUNK_SEATS, CHUNK_TOKENS, ENDING_SEATS) = range(16)  # fmt: skip
SEAT_ROWS = 16
