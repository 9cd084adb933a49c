"""A table of requests sent on its schedule: at their times, by a number of clients, or turn by turn."""

import asyncio
import gc
from array import array
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter_ns, process_time
from typing import Any, Final

import numpy as np

from trilemma.bench.answer import Ending
from trilemma.bench.dialect import Dialect
from trilemma.bench.http import Pool
from trilemma.bench.live import Live, Watched
from trilemma.bench.prompts import Prompts
from trilemma.bench.records import NS_PER_S, Measured, Record
from trilemma.bench.sender import Sender
from trilemma.workload.requests import FloatArray, Requests

TICK_NS: Final = 10_000_000
LOOK_NS: Final = 1_000_000_000
EARLY_NS: Final = 500_000  # timers count in milliseconds: what is due sooner than half of one is due
LEAD_NS: Final = 20_000_000  # between the last preparation and the first request
MOST_AHEAD: Final = 1 << 26  # bytes of requests written before they are due
AHEAD_NS: Final = 1_000_000  # spent on writing them in each tick
MOST_CONNECTIONS_AHEAD: Final = 2048
MOST_TOGETHER: Final = 16
LEAST_CONNECTIONS_AHEAD: Final = 16
ANSWER_S: Final = 0.5  # of an open loop's requests, as many as come meanwhile find a connection open
APART_NS: Final = 200_000  # between the beginnings of a closed loop's clients

Watch = Callable[[Live], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. `clients` 0: every request at its time; else that many clients, beginning 0.2 ms apart, each of
    which sends its next request when its last is answered. `duration_s` ends the sending, `salt` tells the prompts of
    runs apart.
    """

    requests: Requests
    clients: int = 0
    duration_s: float | None = None
    salt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a run puts up with a server: `timeout_s` for an answer, `retries` of what it is too busy for, and the
    end after `most_failures` requests in a row that failed, each begun after the one before had."""

    timeout_s: float = 600.0
    retries: int = 0
    most_failures: int = 20


@dataclass(slots=True, kw_only=True)
class Drive:
    """One run under way."""

    load: Load
    dialect: Dialect
    pool: Pool
    patience: Patience
    watch: Watch
    stage: str = ""
    start_ns: int = 0
    _sender: Sender = field(init=False)
    _watched: Watched = field(init=False)
    _prompts: Prompts = field(init=False)
    _records: list[Record] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _ahead: dict[int, bytes] = field(default_factory=dict)
    _ahead_bytes: int = 0
    _next_ahead: int = 0
    _lag_ns: "array[int]" = field(default_factory=lambda: array("q"))
    _failures: int = 0
    _failing_since_ns: int = 0
    _stopped: str = ""
    _begun: bytearray = field(init=False)
    _bug: BaseException | None = None

    def __post_init__(self) -> None:
        self._begun = bytearray(len(self.load.requests))
        self._sender = Sender(
            dialect=self.dialect, pool=self.pool, timeout_s=self.patience.timeout_s, retries=self.patience.retries
        )
        self._watched = Watched(total=len(self.load.requests), stage=self.stage)
        self._prompts = Prompts(requests=self.load.requests, writing=self.dialect.writing, salt=self.load.salt)

    async def run(self) -> Measured:
        """Sends everything and waits for every answer, or for what stops the run."""
        self._write_ahead(until_ns=None)
        with suppress(OSError):  # the requests themselves will say what is wrong
            await self.pool.open_ahead(self._connections_ahead)
        with _little_collecting():
            busy_s = process_time()
            self.start_ns = perf_counter_ns() + LEAD_NS
            sending = asyncio.create_task(self._send_all())
            ticking = asyncio.create_task(self._tick())
            stopping = asyncio.create_task(self._sender.stopping.wait())
            try:
                await asyncio.wait((sending, ticking, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ticking.cancel()
                stopping.cancel()
                if not sending.done():
                    sending.cancel()
                    self._sender.stop()
                await asyncio.gather(sending, stopping, *self._tasks, return_exceptions=True)
            with suppress(asyncio.CancelledError):
                await ticking  # what the watcher raised
            if not sending.cancelled():
                sending.result()
            if self._bug is not None:
                raise self._bug
            ended_ns = perf_counter_ns()
            busy_s = process_time() - busy_s
        self._look(ended_ns)
        return Measured(
            requests=self.load.requests,
            records=tuple(sorted(self._records, key=lambda record: record.index)),
            start_ns=self.start_ns,
            ended_ns=max((record.ended_ns for record in self._records), default=ended_ns),
            lag_ns=np.frombuffer(self._lag_ns, dtype=np.int64).copy(),
            cpu_share=busy_s * NS_PER_S / max(1, ended_ns - self.start_ns),
            connections=self.pool.opened,
            keeps_connections=self.pool.is_keeping,
            stopped=self._stopped,
        )

    @property
    def _connections_ahead(self) -> int:
        """Connections to open before the first request, so that not all of them have to be opened in its wake."""
        requests = self.load.requests
        wanted = self.load.clients or max(LEAST_CONNECTIONS_AHEAD, ANSWER_S * requests.rate_per_s)
        return int(min(wanted, len(requests), MOST_CONNECTIONS_AHEAD))

    def stop(self, why: str) -> None:
        """Ends the run with what it has."""
        self._stopped = self._stopped or why
        self._sender.stopping.set()

    async def _send_all(self) -> None:
        requests = self.load.requests
        if self.load.clients:
            queue = iter(range(len(requests)))
            for number in range(min(self.load.clients, len(requests))):
                self._spawn(self._client(queue, self.start_ns + number * APART_NS))
        elif requests.think_s is not None:
            for turns in _by_session(requests):
                self._spawn(self._converse(turns, requests.think_s))
        else:
            for index, due_ns in enumerate(self._due_ns(requests.arrival_s)):
                if self._is_over(due_ns):
                    break
                # What is due together is sent together: a turn of the loop for each would be too few turns a second.
                if due_ns - perf_counter_ns() > EARLY_NS or index % MOST_TOGETHER == 0:
                    await _until(due_ns)
                self._spawn(self._send(index, due_ns))
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _client(self, queue: Iterator[int], due_ns: int) -> None:
        """One client of a closed loop: its first request is due at `due_ns`, the next when the last one is over."""
        await _until(due_ns)
        for index in queue:
            if self._is_over(perf_counter_ns()) or self._sender.stopping.is_set():
                return
            record = await self._send(index, due_ns)
            due_ns = record.ended_ns

    async def _converse(self, turns: list[int], think_s: FloatArray) -> None:
        """One session: a turn is due its think time after the answer to the one before; none follows a failure."""
        due_ns = self._due_ns(self.load.requests.arrival_s[turns])
        ended_ns = 0
        for index, at_ns in zip(turns, due_ns, strict=True):
            if not np.isnan(think_s[index]):
                at_ns = ended_ns + round(float(think_s[index]) * NS_PER_S)  # noqa: PLW2901 - the same moment, now known
            long_ns = at_ns - perf_counter_ns() - TICK_NS
            if self._is_over(at_ns) or (long_ns > 0 and await self._sender.pause(long_ns / NS_PER_S)):
                return
            await _until(at_ns)
            if self._sender.stopping.is_set():
                return
            record = await self._send(index, at_ns)
            if record.ending is not Ending.DONE:
                return
            ended_ns = record.ended_ns

    async def _send(self, index: int, due_ns: int) -> Record:
        self._begun[index] = 1
        request = self._ahead.pop(index, None)
        if request is None:
            request = self._written(index)
        else:
            self._ahead_bytes -= len(request)
        record = Record(index=index, intended_ns=due_ns, begun_ns=perf_counter_ns())
        self._records.append(record)
        self._watched.sent += 1
        await self._sender.send(request, record)
        self._watched.retries += record.retries
        self._watched.note(record)
        self._count_failures(record)
        return record

    def _count_failures(self, record: Record) -> None:
        """Stops the run where a server that failed goes on failing; what was under way when it did counts once."""
        if record.ending in {Ending.DONE, Ending.REFUSED}:
            self._failures = 0
        elif not self._failures or record.begun_ns >= self._failing_since_ns:
            self._failures += 1
            self._failing_since_ns = record.ended_ns if self._failures == 1 else self._failing_since_ns
            if self._failures >= self.patience.most_failures:
                self.stop(f"{self._failures} requests in a row failed, the last with: {record.why}")

    def _written(self, index: int) -> bytes:
        return self.dialect.request(self._prompts.json(index), int(self.load.requests.output_tokens[index]))

    def _write_ahead(self, until_ns: int | None) -> None:
        """Writes requests before they are due, in the table's order, as far as memory and time allow."""
        n = len(self.load.requests)
        while self._next_ahead < n and self._ahead_bytes < MOST_AHEAD:
            if until_ns is not None and perf_counter_ns() >= until_ns:
                return
            index, self._next_ahead = self._next_ahead, self._next_ahead + 1
            if not self._begun[index]:
                request = self._ahead[index] = self._written(index)
                self._ahead_bytes += len(request)

    async def _tick(self) -> None:
        """A clock of the client's own: how late it comes is how late everything else does. The ticks that a stall
        swallows count too, so that it weighs by its length."""
        due_ns = self.start_ns
        look_ns = self.start_ns + LOOK_NS
        while True:
            due_ns += TICK_NS
            await asyncio.sleep(max(0, due_ns - perf_counter_ns()) / NS_PER_S)
            now_ns = perf_counter_ns()
            self._lag_ns.append(max(0, now_ns - due_ns))
            while due_ns + TICK_NS <= now_ns:
                due_ns += TICK_NS
                self._lag_ns.append(now_ns - due_ns)
            self._write_ahead(now_ns + AHEAD_NS)
            if now_ns >= look_ns:
                look_ns = now_ns + LOOK_NS
                self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        if not self.watch(self._watched.look((now_ns - self.start_ns) / NS_PER_S)):
            self.stop("stopped by hand")

    def _due_ns(self, arrival_s: FloatArray) -> list[int]:
        due: list[int] = (self.start_ns + np.rint(arrival_s * NS_PER_S).astype(np.int64)).tolist()
        return due

    def _is_over(self, at_ns: int) -> bool:
        """Whether nothing more is sent from `at_ns` on."""
        duration_s = self.load.duration_s
        return duration_s is not None and at_ns - self.start_ns > duration_s * NS_PER_S

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self.stop("a bug")


async def _until(due_ns: int) -> None:
    """Waits for a moment; lets others work where it is past."""
    wait_ns = due_ns - perf_counter_ns()
    await asyncio.sleep(wait_ns / NS_PER_S if wait_ns > EARLY_NS else 0)
    while (wait_ns := due_ns - perf_counter_ns()) > EARLY_NS:
        await asyncio.sleep(wait_ns / NS_PER_S)


def _by_session(requests: Requests) -> list[list[int]]:
    """The requests of each session, in order."""
    assert requests.session is not None
    order = np.argsort(requests.session, kind="stable")
    begins = np.flatnonzero(np.diff(requests.session[order])) + 1
    return [part.tolist() for part in np.split(order, begins)]


@contextmanager
def _little_collecting() -> Iterator[None]:
    """Garbage collection of the young alone: looking through a million tokens' records stops the clock."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
