"""What a deployment did with its GPUs, and what it could do: the values cost prices. None where unmeasured."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Requests per second of one replica: `saturation_rps` with an endless queue, `knee_rps` the most that keeps the
    limits (at most saturation). None where unmeasured."""

    saturation_rps: float | None
    knee_rps: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyAt:
    """How busy the GPUs of a replica are at a load of `rps`, requests/s: the shares of their time that prefill and
    decode take, together at most 1."""

    rps: float
    prefill_share: float
    decode_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One run of a deployment, summed over its replicas.

    `span_s` is the run's length, `rate_rps` its offered load. `prefill_gpu_s` and `decode_gpu_s` are busy GPU-seconds
    by what the step did, `held_gpu_s` all GPU-seconds of running replicas (idle = held - prefill - decode).
    `lost_gpu_s` are those of them that went into requests which failed. Token work: `useful_tokens` of requests inside
    the limits (prompt + output), `late_tokens` of finished requests outside them, `recomputed_tokens` processed again
    after preemption. `output_tokens_in_limits` are the output tokens that earn their price, `prompt_tokens_in_limits`
    likewise; `cached_prompt_tokens` of these were found in the prefix cache, and attending to them took
    `cached_prefill_share` of the prefill time.

    `prefill_w` and `decode_w` are the mean watts of a GPU busy with each (None: the accelerator's own). `busy_at` says
    how busy a replica is at other loads than the run's, where that was measured: batches are smaller in quiet hours, so
    a request takes more of a GPU's time there.
    """

    span_s: float
    rate_rps: float
    held_gpu_s: float
    prefill_gpu_s: float
    decode_gpu_s: float
    useful_tokens: int
    late_tokens: int
    recomputed_tokens: int
    prompt_tokens_in_limits: int
    output_tokens_in_limits: int
    requests: int
    requests_in_limits: int
    lost_gpu_s: float = 0.0
    cached_prompt_tokens: int = 0
    cached_prefill_share: float = 0.0
    prefill_w: float | None = None
    decode_w: float | None = None
    busy_at: tuple[BusyAt, ...] = ()

    def rps_per_replica(self, gpus_per_replica: int) -> float:
        """Requests per second that a replica saw; 0.0 where nothing was held or all came at once."""
        replica_s = self.held_gpu_s / gpus_per_replica
        return self.requests / replica_s if replica_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The period that is priced, in k intervals that repeat for ever.

    seconds (k,) their lengths; load_rps (k,) offered requests per second; held_replicas (k,) replicas running;
    asked_replicas (k,) replicas the sizing policy asks for, at most held. `reason` says what the shape rests on
    ("workload.profile", or "no profile: the trace repeats").
    """

    seconds: FloatArray
    load_rps: FloatArray
    held_replicas: FloatArray
    asked_replicas: FloatArray
    reason: str

    def __post_init__(self) -> None:
        if not self.seconds.size or (self.seconds <= 0).any():
            raise ValueError("a schedule needs intervals of positive length")
        if (self.asked_replicas > self.held_replicas + 1e-9).any():
            raise ValueError("asked_replicas exceeds held_replicas")

    @property
    def period_s(self) -> float:
        """Length of the period, seconds."""
        return float(self.seconds.sum())

    @property
    def mean_load_rps(self) -> float:
        """Offered load averaged over the period."""
        return float((self.load_rps * self.seconds).sum() / self.seconds.sum())
