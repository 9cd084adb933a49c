"""The simulator's semantics said plainly: one step after another, one request after another. Slow on purpose.

`play` is the whole of it: time goes from one moment at which something happens to the next. `oracle_engine` has the
schedulers, `oracle_cache` the KV memory, `oracle_fleet` the router and the replicas.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.sim.oracle_engine import Engine, Reason, Request
from tests.sim.oracle_fleet import Replica, Router
from trilemma.latency.table import StepTable
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["Outcome", "Reason", "Request", "play"]

Watch = Callable[[Engine], None]


@dataclass
class Outcome:
    """`steps` of a lockstep group are the group's; `busy_ps` and `decode_ps` add up over replicas."""

    requests: list[Request]
    gaps: list[int] = field(default_factory=list)
    steps: int = 0
    refused: int = 0
    failed: int = 0
    peak_blocks: int = 0
    busy_ps: int = 0
    decode_ps: int = 0  # of the busy time, what the steps would have taken without their prefill
    end: int = 0  # of the last step

    def column(self, name: str) -> np.ndarray:
        """(n,) int64: one field of every request."""
        return np.array([getattr(r, name) for r in self.requests], np.int64)


def play(
    requests: Requests,
    table: StepTable,
    limits: EngineLimits,
    *,
    clients: int = 0,
    fleet: Fleet | None = None,
    speculation: Speculation | None = None,
    ranks: int = 1,
    shared_experts: bool = False,
    watch: Watch | None = None,
) -> Outcome:
    """Every request on `fleet` of replicas of `ranks` lockstep engines each.

    Open loop, or closed with `clients` > 0. With `shared_experts` a rank's tokens are priced as the mean over the
    ranks, rounded up, where that is more than its own. `watch` is called with every engine after each of its plannings.
    """
    fleet = fleet or Fleet()
    drafts = speculation.draft_tokens if speculation else 0
    if limits.policy is not Policy.VLLM and limits.max_num_batched_tokens < limits.max_num_seqs * (1 + drafts):
        raise ValueError(f"a step must hold {1 + drafts} tokens of each sequence, found {limits}")
    everyone = list_requests(requests, limits)
    out = Outcome(everyone)
    independent = clients and fleet.replicas > 1 and fleet.routing is Routing.ROUND_ROBIN and not fleet.changes
    for share in range(fleet.replicas if independent else 1):
        own_requests, own_clients, own_fleet = everyone, clients, fleet
        if independent:  # each replica has its clients and its requests
            own_requests, own_fleet = everyone[share :: fleet.replicas], Fleet()
            own_clients = len(range(share, clients, fleet.replicas))
            if not own_clients:
                raise ValueError(f"{clients} clients cannot keep {fleet.replicas} replicas busy")
        group = [
            Replica(table, limits, speculation, requests, ranks, shared_experts, watch)
            for _ in range(own_fleet.replicas)
        ]
        Run(own_requests, group, own_fleet, load_of(own_requests, requests, own_clients), out).play()
        for replica in group:
            replica.add_to(out)
        if independent:
            for r in own_requests:
                r.replica = share
    return out


def list_requests(requests: Requests, limits: EngineLimits) -> list[Request]:
    listed = []
    for i in range(len(requests)):
        r = Request(i, int(requests.prompt_tokens[i]), int(requests.output_tokens[i]))
        if requests.session is not None:
            r.session = int(requests.session[i])
        if requests.priority is not None:
            r.priority = int(requests.priority[i])
        if requests.block_ids is not None and requests.block_offsets is not None and limits.prefix_caching:
            # Where sessions go on from answers, a chain may name the units of the answer too.
            named = r.prompt if requests.session is None else r.prompt + r.output
            chain = requests.block_ids[requests.block_offsets[i] : requests.block_offsets[i + 1]].tolist()
            chain = chain[: named // requests.block_tokens]
            repeats = [k for k, name in enumerate(chain) if name in chain[:k]]
            r.names = tuple(chain[: repeats[0]] if repeats else chain)
        listed.append(r)
    return listed


@dataclass
class Load:
    """Who arrives when: (time, request) of what is known at the start, and what each answer brings about."""

    known: list[tuple[int, Request]]
    held_back: list[Request] = field(default_factory=list)  # closed loop: sent in order, one per answer
    turns: dict[int, tuple[int, Request]] = field(default_factory=dict)  # index -> think time and next turn

    def follow_up(self, r: Request, now: int) -> list[tuple[int, Request]]:
        """What arrives because `r` is answered, refused or lost now."""
        if self.held_back:
            return [(now, self.held_back.pop(0))]
        if r.index in self.turns:
            think_ps, turn = self.turns[r.index]
            return [(now + think_ps, turn)]
        return []


def load_of(everyone: list[Request], requests: Requests, clients: int) -> Load:
    if clients:
        return Load([(0, r) for r in everyone[:clients]], everyone[clients:])
    arrival_ps = np.rint(requests.arrival_s * PS_PER_S).astype(np.int64).tolist()
    load = Load([])
    last_turn: dict[int, Request] = {}
    for r in everyone:
        think_s = np.nan if requests.think_s is None else float(requests.think_s[r.index])
        if r.session >= 0 and r.session in last_turn and not np.isnan(think_s):
            load.turns[last_turn[r.session].index] = (int(np.rint(think_s * PS_PER_S)), r)
        else:
            load.known.append((arrival_ps[r.index], r))
        last_turn[r.session] = r
    return load


class Run:
    """A fleet over time."""

    def __init__(self, everyone: list[Request], replicas: list[Replica], fleet: Fleet, load: Load, out: Outcome):
        self.replicas, self.load, self.out, self.retry = replicas, load, out, fleet.retry_failed
        self.router = Router(fleet, replicas)
        self.by_index = {r.index: r for r in everyone}
        self.coming = [(at, r.index) for at, r in load.known]
        heapq.heapify(self.coming)

    def play(self) -> None:
        now = -1
        while True:
            moments = [replica.end for replica in self.replicas if replica.end is not None]
            if self.coming:
                moments.append(self.coming[0][0])
            if self.router.queue or moments:
                moments.append(self.router.next_change(after=now))
            if not moments:
                break
            now = min(moments)
            self.moment(now)

    def moment(self, now: int) -> None:
        """Everything that happens at one time, in this order."""
        for replica in self.replicas:
            if replica.end == now:
                for r in replica.complete():
                    self.answered(r, now)
        again = self.fail(now)
        for r in self.router.released(now):
            self.send(r, now)
        for r in again:
            self.send(r, now)
        while self.coming and self.coming[0][0] == now:
            _, index = heapq.heappop(self.coming)
            r = self.by_index[index]
            r.arrival = now
            self.send(r, now)
        for replica in self.replicas:
            if replica.end is None:
                replica.plan(now)

    def answered(self, r: Request, now: int) -> None:
        for at, follow_up in self.load.follow_up(r, now):
            heapq.heappush(self.coming, (at, follow_up.index))

    def fail(self, now: int) -> list[Request]:
        """Replicas that die now: their requests are lost, or returned to be sent again."""
        dropped = [r for replica in self.router.dying(now) for r in replica.die()]
        dropped.sort(key=lambda r: r.index)
        if self.retry:
            return dropped
        for r in dropped:
            self.lose(r, now)
        return []

    def lose(self, r: Request, now: int) -> None:
        self.out.failed += 1
        self.answered(r, now)

    def send(self, r: Request, now: int) -> None:
        index = self.router.choose(r, now)
        if index is None:
            if r.start < 0:
                r.reason = Reason.NO_REPLICA
            if self.router.somebody_comes(now):
                self.router.queue.append(r)
            else:
                self.lose(r, now)
            return
        r.replica = index
        if self.replicas[index].never_fits(r):
            self.out.refused += 1
            self.answered(r, now)
        else:
            self.replicas[index].arrive(r, now)
