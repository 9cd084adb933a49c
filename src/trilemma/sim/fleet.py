"""How requests find a replica, and when replicas come and go."""

from dataclasses import dataclass
from enum import IntEnum
from math import isfinite

from trilemma.errors import UnsupportedError
from trilemma.sim.checks import LATEST_ARRIVAL_S, MOST_REPLICAS, MOST_SEED, MOST_TOKENS, flag, member, real, whole


class Routing(IntEnum):
    """Which replica gets a request; the number is what the compiled router reads.

    Round robin and session-sticky choose without looking at the replicas (a session keeps the replica its first
    request drew by round robin). The others look at the replicas that serve at that moment: least outstanding takes
    the one with the fewest unanswered requests (ties: the lowest index); power of two the better of two drawn ones;
    prefix-aware the one whose cache holds the longest prefix unless it is overloaded, as SGLang's router does.
    """

    ROUND_ROBIN = 0
    SESSION_STICKY = 1
    LEAST_OUTSTANDING = 2
    POWER_OF_TWO = 3
    PREFIX_AWARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Equal replicas behind a router.

    Per replica, seconds, empty where nothing of the kind happens: `ready_s` when it starts to serve (0: from the
    start), `drain_s` when it takes no new requests, `fail_s` when it dies with everything inside; infinity for never.
    Requests of a dead replica are lost, or with `retry_failed` sent again at once. A request that finds no serving
    replica waits for the next to get ready and is lost where none will. Prefix-aware routing gives up the cache when
    the fullest replica has more than `balance_abs` requests and `balance_rel` times as many as the emptiest. `seed`
    keys the draws of power of two.

    ValueError for no replica, another number of times than replicas, times before 0 or NaN, or what is no number;
    UnsupportedError for more than MOST_REPLICAS, finite times after LATEST_ARRIVAL_S or a seed beyond MOST_SEED.
    """

    replicas: int = 1
    routing: Routing = Routing.ROUND_ROBIN
    ready_s: tuple[float, ...] = ()
    drain_s: tuple[float, ...] = ()
    fail_s: tuple[float, ...] = ()
    retry_failed: bool = False
    balance_abs: int = 64
    balance_rel: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("replicas", 1, MOST_REPLICAS),
            ("balance_abs", 0, MOST_TOKENS),
            ("seed", 0, MOST_SEED),
        ):
            object.__setattr__(self, name, whole(name, getattr(self, name), least=least, most=most))
        member("routing", self.routing, Routing)
        object.__setattr__(self, "retry_failed", flag("retry_failed", self.retry_failed))
        object.__setattr__(self, "balance_rel", real("balance_rel", self.balance_rel))
        if not 0 <= self.balance_rel < float("inf"):
            raise ValueError(f"balance_rel must be finite and cannot be negative, found {self.balance_rel:g}")
        for name in ("ready_s", "drain_s", "fail_s"):
            times = tuple(real(name, time) for time in getattr(self, name))
            object.__setattr__(self, name, times)
            if times and len(times) != self.replicas:
                raise ValueError(f"{name} needs {self.replicas} times, found {len(times)}")
            for time in times:
                if time < 0:
                    raise ValueError(f"{name} counts from 0, found {time:g} s")
                if time > LATEST_ARRIVAL_S and isfinite(time):
                    raise UnsupportedError(
                        f"{name}: the simulator's clock holds {LATEST_ARRIVAL_S:,.0f} s, found {time:,.0f} s "
                        "(infinity for never)"
                    )

    @property
    def changes(self) -> bool:
        """Whether any replica comes or goes."""
        return any(t > 0 for t in self.ready_s) or any(t < float("inf") for t in (*self.drain_s, *self.fail_s))
