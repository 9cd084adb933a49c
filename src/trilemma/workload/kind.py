"""Latency-sensitive or throughput-sensitive: which of the two kinds a workload is, and why."""

from typing import Final, Literal, NamedTuple

import numpy as np

from trilemma.workload.arrivals import ClosedLoop
from trilemma.workload.requests import Requests

_BULK_SHARE: Final = 0.1
_BULK_REQUESTS: Final = 100


class Kind(NamedTuple):
    """The kind and its reason in words."""

    name: Literal["latency-sensitive", "throughput-sensitive"]
    reason: str


def classify(
    requests: Requests,
    *,
    closed_loop: ClosedLoop | None = None,
    has_latency_limits: bool = False,
    has_deadline: bool = False,
) -> Kind:
    """The kind of a workload, by the first rule that applies.

    1. A limit on a latency makes it latency-sensitive, for then a p99 binds whatever the arrivals look like.
    2. A deadline makes it throughput-sensitive.
    3. So do closed-loop clients: they wait for answers, so load follows service and no queue builds up.
    4. So do requests in bulk: all at once, or at least 100 and a tenth of them at the same instant.
    5. Anything else arrives over time, as from people or programs that wait: latency-sensitive.
    """
    if has_latency_limits:
        return Kind("latency-sensitive", "the limits bound a latency")
    if has_deadline:
        return Kind("throughput-sensitive", "the limits set a deadline for the whole and bound no latency")
    if closed_loop is not None:
        return Kind("throughput-sensitive", f"{closed_loop.concurrency:,} closed-loop clients: load follows service")
    n = len(requests)
    if n > 1 and requests.arrival_s[0] == requests.arrival_s[-1]:
        return Kind("throughput-sensitive", f"all {n:,} requests arrive at once")
    largest = int(np.unique(requests.arrival_s, return_counts=True)[1].max()) if n else 0
    if largest >= max(_BULK_REQUESTS, _BULK_SHARE * n):
        return Kind("throughput-sensitive", f"arrivals come in bulk: {largest:,} of {n:,} requests at one instant")
    return Kind("latency-sensitive", "requests arrive over time and nothing says that they may wait")
