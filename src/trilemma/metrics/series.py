"""A run over time, in intervals of equal length: how full, how fast, busy with what."""

from dataclasses import dataclass

import numpy as np

from trilemma.metrics.timings import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """k intervals of `resolution_s` seconds from time 0 on, the last one cut where the run ends; all replicas together.

    time_s (k,) the beginning and length_s (k,) the length of each. At its beginning: running, waiting (k,) requests
    (preempted ones among the waiting), kv_share (k,) used share of the KV cache, averaged over replicas. Over the
    interval: arrivals, answers (k,) requests that came and that ended; prefill_tokens, decode_tokens (k,) computed;
    prefill_share, decode_share (k,) of the replicas' time; started_tokens (k,) prompt tokens of the requests first
    scheduled in it and hit_tokens (k,) those of them found in the prefix cache.
    """

    resolution_s: float
    time_s: FloatArray
    length_s: FloatArray
    running: FloatArray
    waiting: FloatArray
    kv_share: FloatArray
    arrivals: IntArray
    answers: IntArray
    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    prefill_share: FloatArray
    decode_share: FloatArray
    started_tokens: IntArray
    hit_tokens: IntArray

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name != "resolution_s" and getattr(self, name).size != len(self):
                raise ValueError(f"{name} has {getattr(self, name).size} values for {len(self)} intervals")

    def __len__(self) -> int:
        return int(self.time_s.size)

    @property
    def idle_share(self) -> FloatArray:
        """(k,) of the replicas' time in which no step ran."""
        return np.maximum(0.0, 1.0 - self.prefill_share - self.decode_share)

    @property
    def prefill_tokens_per_s(self) -> FloatArray:
        """(k,) prompt tokens computed per second."""
        return self.prefill_tokens / self.length_s

    @property
    def decode_tokens_per_s(self) -> FloatArray:
        """(k,) output tokens computed per second."""
        return self.decode_tokens / self.length_s

    @property
    def hit_share(self) -> FloatArray:
        """(k,) of the started prompts' tokens that the prefix cache held; NaN where none started."""
        share: FloatArray = np.full(len(self), np.nan)
        np.divide(self.hit_tokens, self.started_tokens, out=share, where=self.started_tokens > 0)
        return share
