"""Disaggregated pools, compiled part: names of array columns and the tuples of arrays that functions are given."""

from collections import namedtuple

# Kinds of moments, in the order in which those of one time are dealt with; the lower bits are a request or a replica.
# CATCHES_UP plays what a decode replica did before a time at which a router looks at it; RECEIVES and SENDS are the
# plannings of decode and of prefill replicas.
CATCHES_UP, MOVED, LANDED, RECEIVES, ARRIVES, SENDS = range(6)
KIND_BITS = 40
SHORTEST_STRETCH = 3  # steps; fewer are as fast one by one

# Columns of `seen` (n, 7) int64, ps, -1 for never. DONE is the time of the last token for those who wait to be resumed.
START, PREFILLED, SENT, READY, BEGUN, FIRST, DONE = range(7)
SEEN_COLUMNS = 7
# Columns of `notes` (n, 13) int32: links of queues, of prefills to be freed, of the loading; tokens generated before a
# preemption and lost by it; tokens to transfer after the prefill; units held in the prefix cache; who serves.
(LINK, LEAVING_LINK, AHEAD, BEHIND, GENERATED, PREEMPTED, LOST, MOVES, HITS, UNITS, REASON, SENDER, RECEIVER) = range(
    13
)
NOTE_COLUMNS = 13

# What every replica remembers; the first four are what routers and the clock read.
WAKE, OUTSTANDING, ENDED, ENDED_AT, NOW, BEGAN, SEATS_LEFT, FREE, QUEUE, QUEUE_END, BLOCKED, IDLE = range(12)
# A prefill replica also: its unfinished prompt, when it last looked at its queue, what is given back before the next
# planning (asynchronous scheduling: after it), until when its link is taken, and the chunk that it gets next and when.
(PARTIAL, PARTIAL_DONE, SEEN_UNTIL, LATE_SEATS, LEAVING, LEAVING_END, TAKEN_UNTIL, CHUNK, CHUNK_AT) = range(12, 21)
SENDER_SCALARS = 21
# A decode replica also: the kernel's sums (see kernel.py), loads in flight or waiting for a seat, in order of the end
# of their transfer, and blocks given back by transfers that ended, from when on.
(HEAD, TAIL, DECODES, BASE_SUM, STEP, STACK, UNFINISHED, DONE_TOKENS, TARGET, YOUNG, YOUNG_BASE, QUIET, LATE, LOADING,
 LOADING_END, FREED, FREED_AT) = range(12, 29)  # fmt: skip
RECEIVER_SCALARS = 29

# What the clock counts: entries of its heap (read by coming.py), the next arrival that depends on nothing, requests
# sent by closed-loop clients, those dealt out by each router, refused ones.
HEAP_SIZE, NEXT_ARRIVAL, RELEASED, SENDERS_DEALT, RECEIVERS_DEALT, REFUSALS = range(6)
CLOCK_COUNTS = 6

# `hold`: prefill blocks stay held until the transfer has ended. `by_prefill`: the prefill side samples the first token.
# `entry`: the column of `seen` with the time at which a request comes to its decode replica.
Rules = namedtuple("Rules", "hold by_prefill entry overlap one_at_a_time latency_ps clients sessions")
Replicas = namedtuple(
    "Replicas",
    "count routing max_tokens max_seqs page blocks reserve_full whole_prompts asynchronous caching unit window prices",
)
# `link_ps`: how long the KV of so many tokens keeps a link busy.
Load = namedtuple(
    "Load", "arrival prompt output fits link_ps successor think_ps first_arrivals chain_offsets chain_ids chain_units"
)
Out = namedtuple("Out", "seen notes histogram sender_totals receiver_totals")
Senders = namedtuple("Senders", "scalars completing nodes where held")
Receivers = namedtuple(
    "Receivers", "scalars slots seats late ring ring_bits window_ring window_bits crossing joined completing"
)
Clock = namedtuple("Clock", "times codes counts")
