"""Whether a measurement is one of the server, or of the client that was too slow to make it."""

from dataclasses import dataclass

import numpy as np

from trilemma.bench.answer import Ending
from trilemma.bench.records import NS_PER_S, Measured
from trilemma.metrics.timings import FloatArray
from trilemma.units import show_time

ALLOWED_LAG_S = 5e-3
ALLOWED_SHARE = 0.01  # of the median time to the first token


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """`reasons` why the numbers are not the server's; none: they are. `allowed_s` is the bound on the client's lag."""

    sending_p50_s: float
    sending_p99_s: float
    lag_p50_s: float
    lag_p99_s: float
    allowed_s: float
    reasons: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the client kept up."""
        return not self.reasons


def validity(measured: Measured, *, allowed_s: float = ALLOWED_LAG_S) -> Validity:
    """The rule: the client was the bottleneck, and the result is not valid, where

    - the 99th percentile of its scheduling error (request begun - request due) exceeds what is allowed, or
    - the 99th percentile of the lag of its event loop does (a token that waits for the loop is stamped late), or
    - this machine ran out of ports, files or memory for a request.

    Allowed are `allowed_s`, or a hundredth of the median time to the first token where that is more.
    """
    first = [r.token_ns[0] - r.begun_ns for r in measured.records if r.ending is Ending.DONE]
    allowed_s = max(allowed_s, ALLOWED_SHARE * float(np.median(first)) / NS_PER_S if first else 0.0)
    sending, lag = measured.sending_error_s, measured.lag_ns / NS_PER_S
    reasons = []
    if _percentile(sending, 99) > allowed_s:
        late = f"{show_time(_percentile(sending, 99))} late at p99"
        reasons.append(f"the client sent requests {late}, {show_time(allowed_s)} are allowed")
    if _percentile(lag, 99) > allowed_s:
        late = f"{show_time(_percentile(lag, 99))} late at p99"
        reasons.append(f"the client's event loop came {late}, {show_time(allowed_s)} are allowed")
    if faults := sum(record.is_client_fault for record in measured.records):
        reasons.append(f"the client lacked connections, files or memory for {faults:,} requests")
    return Validity(
        sending_p50_s=_percentile(sending, 50),
        sending_p99_s=_percentile(sending, 99),
        lag_p50_s=_percentile(lag, 50),
        lag_p99_s=_percentile(lag, 99),
        allowed_s=allowed_s,
        reasons=tuple(reasons),
    )


def _percentile(values: FloatArray, percent: float) -> float:
    return float(np.percentile(values, percent)) if values.size else 0.0
