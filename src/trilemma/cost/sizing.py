"""How many replicas a load needs: Little's law, headroom on top of the load, spares on top of that."""

import math

import numpy as np
import numpy.typing as npt

from trilemma.metrics.activity import Schedule

FloatArray = npt.NDArray[np.float64]
SLACK = 1e-9  # 16.000000000000004 replicas are 16


def replica_rps(batch: float, latency_s: float) -> float:
    """Requests per second of a replica that holds `batch` requests for `latency_s` each (Little's law).

    >>> replica_rps(32, 2.0)
    16.0
    """
    return batch / latency_s


def replicas_for(load_rps: float, replica_capacity_rps: float, *, headroom: float = 0.0, spare: int = 0) -> int:
    """ceil(load x (1 + headroom) / capacity) + spare.

    Headroom is a share of the load, not of the capacity: 25% on 100 requests/s asks for 125, not for 100 / 0.75.
    Raises ValueError for a negative load, headroom or spare and for a capacity that is not above 0.

    >>> [replicas_for(100, replica_rps(32, 2.0), headroom=h) for h in (0, 0.20, 0.25, 0.30)]
    [7, 8, 8, 9]
    >>> replicas_for(100, 16, spare=1)
    8
    """
    if not replica_capacity_rps > 0 or load_rps < 0 or headroom < 0 or spare < 0:
        raise ValueError(
            f"expected capacity above 0 and load, headroom, spare at least 0, found "
            f"{replica_capacity_rps}, {load_rps}, {headroom}, {spare}"
        )
    return math.ceil(load_rps * (1 + headroom) / replica_capacity_rps - SLACK) + spare


def replicas_each(
    load_rps: FloatArray, replica_capacity_rps: float, *, headroom: float = 0.0, spare: int = 0, at_least: int = 1
) -> FloatArray:
    """(k,) -> (k,). `replicas_for` each of several loads, and never fewer than `at_least`. Raises as it does.

    >>> replicas_each(np.array([0.0, 100.0]), 16.0, headroom=0.25)
    array([1., 8.])
    """
    replicas_for(float(load_rps.min()), replica_capacity_rps, headroom=headroom, spare=spare)  # raises for all of them
    asked: FloatArray = np.ceil(load_rps * (1 + headroom) / replica_capacity_rps - SLACK) + spare
    return np.maximum(asked, float(at_least))


def sized_schedule(
    *,
    seconds: FloatArray,
    load_rps: FloatArray,
    replica_capacity_rps: float,
    headroom: float,
    spare: int,
    scales_down: bool,
    reason: str,
    at_least: int = 1,
) -> Schedule:
    """The replicas asked for in each interval, and held: as asked where the fleet scales down, else the peak's.

    seconds (k,), load_rps (k,). Capacity is that of one replica inside its limits (the knee). Never fewer than
    `at_least`: a fleet at zero would greet the first request of the morning with a cold start.

    >>> day = sized_schedule(seconds=np.full(2, 43200.0), load_rps=np.array([100.0, 20.0]), replica_capacity_rps=16,
    ...                      headroom=0.25, spare=1, scales_down=True, reason="two halves of a day")
    >>> day.held_replicas
    array([9., 3.])
    """
    asked = replicas_each(load_rps, replica_capacity_rps, headroom=headroom, spare=spare, at_least=at_least)
    held = asked if scales_down else np.full_like(asked, asked.max())
    return Schedule(seconds=seconds, load_rps=load_rps, held_replicas=held, asked_replicas=asked, reason=reason)
