"""What paid GPUs were for: useful work, waste, headroom (latency, reserve), idle, stranded; by interval.

Each quantity is computed on its own (paid, kept, held, asked, load at the knee, load at saturation); the uses are the
gaps between neighbours, so that they sum to what is paid only if the quantities agree.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from trilemma.metrics.activity import Activity, Capacity, Schedule

FloatArray = npt.NDArray[np.float64]
BUSIEST = 1 - 1e-6  # of a GPU's time: beyond it the idle share has no logarithm to speak of


@dataclass(frozen=True, slots=True, kw_only=True)
class ByUse:
    """An amount ($/h, GPUs or watts, as its holder says) split by what it bought.

    >>> ByUse(useful=1.0, latency=0.5, reserve=0.25).headroom
    0.75
    """

    useful: float = 0.0
    waste: float = 0.0
    latency: float = 0.0
    reserve: float = 0.0
    idle: float = 0.0
    stranded: float = 0.0

    @classmethod
    def of(cls, columns: FloatArray) -> "ByUse":
        """From six amounts in the order of the fields."""
        useful, waste, latency, reserve, idle, stranded = columns.tolist()
        return cls(useful=useful, waste=waste, latency=latency, reserve=reserve, idle=idle, stranded=stranded)

    @property
    def headroom(self) -> float:
        """Both causes: running below saturation for the limits, and margin, redundancy, rounding."""
        return self.latency + self.reserve

    @property
    def total(self) -> float:
        """Sum over the uses."""
        return self.useful + self.waste + self.headroom + self.idle + self.stranded

    @property
    def bought_nothing(self) -> float:
        """waste + headroom + idle + stranded."""
        return self.waste + self.headroom + self.idle + self.stranded

    @property
    def five(self) -> dict[str, float]:
        """The use view's five names and amounts."""
        return {
            "useful": self.useful,
            "waste": self.waste,
            "headroom": self.headroom,
            "idle": self.idle,
            "stranded": self.stranded,
        }

    def __add__(self, other: "ByUse") -> "ByUse":
        # Field by field, not in a loop: a plan adds some thousand bills up.
        return ByUse(
            useful=self.useful + other.useful,
            waste=self.waste + other.waste,
            latency=self.latency + other.latency,
            reserve=self.reserve + other.reserve,
            idle=self.idle + other.idle,
            stranded=self.stranded + other.stranded,
        )

    def times(self, factor: float) -> "ByUse":
        """Every amount times `factor`."""
        return ByUse(
            useful=self.useful * factor,
            waste=self.waste * factor,
            latency=self.latency * factor,
            reserve=self.reserve * factor,
            idle=self.idle * factor,
            stranded=self.stranded * factor,
        )


@dataclass(frozen=True, kw_only=True)  # no slots: what follows from the quantities is reckoned when asked, and kept
class GpuUse:
    """GPUs over k intervals, each array (k,); `weight` is an interval's share of the period.

    paid >= kept >= held >= asked >= knee >= saturation, in GPUs. `kept` belongs to the replicas the units are paid
    for: the peak's where an offer charges all day, those running where it charges by the hour. `knee` is None where
    unmeasured. `served_rps` is the load the running replicas can take; `prefill` and `decode` the GPUs busy with
    each; `useful_share` the part of the token work that met its limits.
    """

    weight: FloatArray
    paid: FloatArray
    kept: FloatArray
    held: FloatArray
    asked: FloatArray
    knee: FloatArray | None
    saturation: FloatArray
    served_rps: FloatArray
    prefill: FloatArray
    decode: FloatArray
    useful_share: float

    @cached_property
    def columns(self) -> FloatArray:
        """(k, 6) GPUs by use in the order of ByUse; without a knee all headroom stands under reserve."""
        knee = self.saturation if self.knee is None else self.knee
        useful = self.saturation * self.useful_share
        gaps = (
            useful,
            self.saturation - useful,
            knee - self.saturation,
            self.asked - knee,
            self.kept - self.asked,
            self.paid - self.kept,
        )
        return np.maximum(np.stack(gaps, axis=1), 0.0)

    @cached_property
    def mean(self) -> ByUse:
        """Average GPUs by use over the period."""
        return ByUse.of(self.weight @ self.columns)

    @cached_property
    def paid_gpus(self) -> float:
        """Average GPUs that are paid."""
        return self.over_period(self.paid)

    def over_period(self, per_interval: FloatArray) -> float:
        """Time average of a (k,) quantity."""
        return math.fsum((self.weight * per_interval).tolist())


def useful_share(activity: Activity) -> float:
    """Work inside the limits over all work; 0 where there is none.

    Busy GPU time that went into requests which failed is waste, and of the rest the token work of late and recomputed
    tokens.

    >>> from types import SimpleNamespace
    >>> run = {"useful_tokens": 90, "late_tokens": 8, "recomputed_tokens": 2, "prefill_gpu_s": 10, "decode_gpu_s": 30}
    >>> useful_share(SimpleNamespace(**run, lost_gpu_s=0)), useful_share(SimpleNamespace(**run, lost_gpu_s=20))
    (0.9, 0.45)
    """
    work = activity.useful_tokens + activity.late_tokens + activity.recomputed_tokens
    busy_gpu_s = activity.prefill_gpu_s + activity.decode_gpu_s
    kept = 1 - activity.lost_gpu_s / busy_gpu_s if busy_gpu_s else 1.0
    return activity.useful_tokens / work * kept if work else 0.0


def gpu_use(
    schedule: Schedule,
    *,
    held_replicas: FloatArray,
    paid: FloatArray,
    kept: FloatArray,
    gpus_per_replica: int,
    activity: Activity,
    capacity: Capacity,
) -> GpuUse:
    """GPUs by interval. `paid` and `kept` (k,) GPUs come from the offer; the rest follows from load and capacity.

    Served is the load, at most what the held replicas saturate at. How long GPUs are busy with it says `busy_gpus`.
    Where saturation is unmeasured, the busy GPU-seconds of the run's requests stand in for served / X_sat. A policy
    that asks for less than the served load needs is taken at what is needed: GPUs at work are not idle.
    """
    busy_gpu_s = (activity.prefill_gpu_s + activity.decode_gpu_s) / activity.requests if activity.requests else 0.0
    held = held_replicas * gpus_per_replica
    if capacity.saturation_rps is not None:
        most_rps = held_replicas * capacity.saturation_rps
    else:
        most_rps = held / busy_gpu_s if busy_gpu_s else np.full_like(held, np.inf)
    served_rps = np.where(held > 0, np.minimum(schedule.load_rps, most_rps), 0.0)
    prefill, decode = busy_gpus(activity, served_rps, held, gpus_per_replica)
    work_gpu_s = busy_gpu_s if capacity.saturation_rps is None else gpus_per_replica / capacity.saturation_rps
    saturation = np.minimum(served_rps * work_gpu_s, held)
    asked = np.maximum(np.minimum(schedule.asked_replicas * gpus_per_replica, held), saturation)
    return GpuUse(
        weight=schedule.seconds / schedule.period_s,
        paid=paid,
        kept=kept,
        held=held,
        asked=asked,
        knee=_at_knee(served_rps, capacity, gpus_per_replica, saturation, asked),
        saturation=saturation,
        served_rps=served_rps,
        prefill=prefill,
        decode=decode,
        useful_share=useful_share(activity),
    )


def busy_gpus(
    activity: Activity, served_rps: FloatArray, held: FloatArray, gpus_per_replica: int
) -> tuple[FloatArray, FloatArray]:
    """(k,) GPUs busy with prefill and with decode while the held GPUs (k,) serve `served_rps` (k,).

    From the run alone: its GPU-seconds per request, at most every held GPU. With `activity.busy_at`: between the loads
    that were measured. There the logarithm of the idle share is interpolated, from none at no load: a replica idles
    while nobody is on it, which happens exp(-rate x time alone) of the time when requests come independently. The share
    of prefill, which hardly depends on who else is there, is interpolated itself.
    """
    if not activity.busy_at:
        per_request = 1 / activity.requests if activity.requests else 0.0
        prefill_gpu_s, decode_gpu_s = activity.prefill_gpu_s * per_request, activity.decode_gpu_s * per_request
        busy = np.minimum(served_rps * (prefill_gpu_s + decode_gpu_s), held)
        prefill = busy * (prefill_gpu_s / (prefill_gpu_s + decode_gpu_s)) if busy.any() else busy
        return prefill, busy - prefill
    rps, prefill_shares, depths = _measured_loads(activity, gpus_per_replica)
    load = np.divide(served_rps * gpus_per_replica, held, out=np.zeros_like(held), where=held > 0)
    beyond = np.maximum(load / rps[-1], 1.0)  # in proportion to the load above the highest measured
    busy = -np.expm1(-np.interp(load, rps, depths) * beyond)
    prefill = np.minimum(np.interp(load, rps, prefill_shares) * beyond, busy)
    return prefill * held, (busy - prefill) * held


@lru_cache(maxsize=16)  # a run is priced at every offer, held and scaled down
def _measured_loads(activity: Activity, gpus_per_replica: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(m,) loads of a replica in rising order from 0, the share of prefill there, and -log of the idle share; neither
    of these falls, so that more load never draws less."""
    points = [(at.rps, at.prefill_share, at.decode_share) for at in activity.busy_at]
    if activity.held_gpu_s > 0:
        own = (activity.prefill_gpu_s / activity.held_gpu_s, activity.decode_gpu_s / activity.held_gpu_s)
        points.append((activity.rps_per_replica(gpus_per_replica), *own))
    table = np.array([(0.0, 0.0, 0.0), *sorted(points)])
    busy = np.minimum(table[:, 1] + table[:, 2], BUSIEST)
    prefill, depth = np.maximum.accumulate(np.stack((table[:, 1], -np.log1p(-busy)), axis=1), axis=0).T
    return table[:, 0], prefill, depth


def _at_knee(
    served_rps: FloatArray, capacity: Capacity, gpus_per_replica: int, saturation: FloatArray, asked: FloatArray
) -> FloatArray | None:
    """(k,) GPUs of served / X_knee, between saturation and asked; a knee of 0 asks for everything."""
    if capacity.knee_rps is None:
        return None
    if capacity.knee_rps == 0:
        return np.where(served_rps > 0, asked, saturation)
    return np.clip(served_rps / capacity.knee_rps * gpus_per_replica, saturation, asked)
