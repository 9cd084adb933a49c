"""How requests find a replica, and when replicas come and go."""

from dataclasses import dataclass
from enum import IntEnum


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
    the fullest replica has more than `balance_abs` requests and `balance_rel` times as many as the emptiest.
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
        if self.replicas < 1:
            raise ValueError(f"at least one replica is needed, found {self.replicas}")
        for name in ("ready_s", "drain_s", "fail_s"):
            times = getattr(self, name)
            if times and len(times) != self.replicas:
                raise ValueError(f"{name} needs {self.replicas} times, found {len(times)}")
            if any(not t >= 0 for t in times):
                raise ValueError(f"{name} counts from 0, found {times}")

    @property
    def changes(self) -> bool:
        """Whether any replica comes or goes."""
        return any(t > 0 for t in self.ready_s) or any(t < float("inf") for t in (*self.drain_s, *self.fail_s))
