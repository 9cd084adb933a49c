"""How long work will still take, from how fast it went."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

FIRST_SHARE: Final = 0.03  # of the work, before anything is said
FIRST_S: Final = 1.0
SETTLES_S: Final = 5.0  # a new pace shows after about this long
LOOKS_BACK: Final = 0.5  # of the time so far: what was answered at once in the beginning says nothing of the rest


@dataclass
class Eta:
    """The time left, told after a few percent of a phase, and moved towards what the last half of it suggests.

    The told time runs down with the clock in between, so that it seldom rises.
    """

    _phase: tuple[str, int] | None = None
    _start: tuple[float, int] = (0.0, 0)  # (seconds, done)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)  # the same, of the last part of the time
    _told: tuple[float, float] | None = None  # (when, seconds left)

    def left_s(self, done: int, total: int, now: str, at_s: float) -> float | None:
        """Seconds left of phase `now` at the time `at_s`; None while that is anybody's guess."""
        if self._phase != (now, total) or done < self._seen[-1][1]:
            self._phase, self._start, self._told = (now, total), (at_s, done), None
            self._seen.clear()
        self._seen.append((at_s, done))
        if done >= total:
            return 0.0
        since_s, from_done = self._start
        if at_s - since_s < FIRST_S or done - from_done < max(2, FIRST_SHARE * total):
            return None
        pace = self._pace(at_s)
        if pace is None:
            return None
        suggested_s = (total - done) * pace
        if self._told is None:
            left_s = suggested_s
        else:
            before_s, told_s = self._told
            expected_s = max(0.0, told_s - (at_s - before_s))
            left_s = expected_s + (suggested_s - expected_s) * (1 - math.exp((before_s - at_s) / SETTLES_S))
        self._told = (at_s, left_s)
        return left_s

    def _pace(self, at_s: float) -> float | None:
        """Seconds a piece, over the last part of the time so far; what lies further back is forgotten."""
        back_to_s = at_s - LOOKS_BACK * (at_s - self._start[0])
        while len(self._seen) > 2 and self._seen[1][0] <= back_to_s:
            self._seen.popleft()
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last_s - first_s) / (last - first) if last > first else None


def show_left(seconds: float | None) -> str:
    """The time left in the words of somebody who does not know it to the second.

    >>> show_left(None), show_left(4.2), show_left(48), show_left(400), show_left(8000)
    ('', '5 s left', '50 s left', '7 min left', '2.2 h left')
    """
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{math.ceil(seconds)} s left"
    if seconds < 95:
        return f"{5 * math.ceil(seconds / 5)} s left"
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} min left"
    return f"{seconds / 3600:.1f} h left"
