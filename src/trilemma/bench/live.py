"""A run while it runs: what there is to see of it, cheap enough to be looked at every second."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from trilemma.bench.answer import Ending
from trilemma.bench.records import NS_PER_S, Record

RECENT = 500  # finished requests whose latencies are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One look at a run. Rates are since the last look, latencies of the last finished requests, None before any.

    `stage` says which part of the work this is, such as "warm-up".
    """

    stage: str
    elapsed_s: float
    total: int
    sent: int
    in_flight: int
    endings: dict[str, int]
    retries: int
    requests_per_s: float
    tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    late_p99_s: float | None

    @property
    def ended(self) -> int:
        """Requests that got an answer or did not."""
        return sum(self.endings.values())


@dataclass(slots=True, kw_only=True)
class Watched:
    """Counts a run keeps as it goes."""

    total: int
    stage: str = ""
    sent: int = 0
    retries: int = 0
    endings: dict[str, int] = field(default_factory=lambda: {str(ending): 0 for ending in Ending})
    tokens: int = 0
    _recent: deque[Record] = field(default_factory=lambda: deque(maxlen=RECENT))
    _last: tuple[float, int, int] = (0.0, 0, 0)

    @property
    def ended(self) -> int:
        """Requests that are over."""
        return sum(self.endings.values())

    def note(self, record: Record) -> None:
        """One request is over."""
        self.endings[str(record.ending)] += 1
        self.tokens += len(record.token_ns)
        self._recent.append(record)

    def look(self, elapsed_s: float) -> Live:
        """What there is to see, `elapsed_s` after the start."""
        before_s, ended, tokens = self._last
        over_s = max(elapsed_s - before_s, 1e-9)
        self._last = (elapsed_s, self.ended, self.tokens)
        done = [record for record in self._recent if record.ending is Ending.DONE]
        ttft = [(record.token_ns[0] - record.begun_ns) / NS_PER_S for record in done]
        tpot = [(t[-1] - t[0]) / (len(t) - 1) / NS_PER_S for record in done if len(t := record.token_ns) > 1]
        late = [(record.begun_ns - record.intended_ns) / NS_PER_S for record in self._recent]
        return Live(
            stage=self.stage,
            elapsed_s=elapsed_s,
            total=self.total,
            sent=self.sent,
            in_flight=self.sent - self.ended,
            endings=dict(self.endings),
            retries=self.retries,
            requests_per_s=(self.ended - ended) / over_s,
            tokens_per_s=(self.tokens - tokens) / over_s,
            ttft_p50_s=_percentile(ttft, 50),
            ttft_p99_s=_percentile(ttft, 99),
            tpot_p50_s=_percentile(tpot, 50),
            late_p99_s=_percentile(late, 99),
        )


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None
