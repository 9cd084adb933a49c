"""One request: sent, waited for, and sent again where that is allowed."""

import asyncio
import errno
import os
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Final

from trilemma.bench.answer import Answer, Ending
from trilemma.bench.dialect import Dialect
from trilemma.bench.http import CONNECT_S, Pool
from trilemma.bench.records import CLIENT_FAULT, Record

BUSY: Final = (429, 503)  # statuses that say: later
FIRST_PAUSE_S: Final = 0.5  # before a request is sent again to a server that names no time; doubles each time
LONGEST_PAUSE_S: Final = 60.0
LACKING: Final = {
    errno.EMFILE: "more files: raise `ulimit -n`",
    errno.ENFILE: "more files",
    errno.EADDRNOTAVAIL: "more ports",
    errno.ENOBUFS: "more buffers",
    errno.ENOMEM: "more memory",
}


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends single requests over a pool, each within `timeout_s`, and up to `retries` times again where the server is
    busy. Once `stopping` is set nothing is sent again; `stop` ends what is under way."""

    dialect: Dialect
    pool: Pool
    timeout_s: float
    retries: int = 0
    answers: type[Answer] = Answer
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _under_way: set[Answer] = field(default_factory=set)

    async def send(self, request: bytes, record: Record) -> None:
        """Sends one request until its record has an ending."""
        is_fresh = False
        while True:
            answer = await self.attempt(request, record, is_fresh=is_fresh)
            record.take(answer)
            if answer.is_stale and not is_fresh:
                # The server closed a kept connection just then: it never saw the request.
                record.reconnects += 1
                self.pool.note_stale()
                is_fresh = True
                continue
            if answer.status not in BUSY or record.retries >= self.retries or self.stopping.is_set():
                return
            if await self.pause(_pause_s(answer, record.retries)):
                return
            record.retries += 1

    def stop(self) -> None:
        """Ends every request under way."""
        self.stopping.set()
        for answer in list(self._under_way):
            answer.fail(Ending.FAILED, "stopped with the run")

    async def attempt(self, request: bytes, record: Record, *, is_fresh: bool = False) -> Answer:
        """Sends a request once; its answer, ended in one way or another."""
        answer = self.answers(self.dialect.endpoint.route)
        self._under_way.add(answer)
        said = f"no whole answer within {self.timeout_s:g} s"
        timer = asyncio.get_running_loop().call_later(self.timeout_s, answer.fail, Ending.TIMED_OUT, said)
        try:
            connection = await self.pool.take(fresh=is_fresh)
            if answer.ending is None:
                record.sent_ns = perf_counter_ns()
                connection.send(request, answer)
                await answer.finished
            self.pool.give(connection)
        except OSError as error:
            answer.fail(Ending.FAILED, connect_error(error))
        finally:
            timer.cancel()
            self._under_way.discard(answer)
        return answer

    async def pause(self, seconds: float) -> bool:
        """Waits; whether the run is stopped meanwhile."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


def connect_error(error: OSError) -> str:
    """Why there is no connection, in words."""
    if error.errno in LACKING:
        return f"{CLIENT_FAULT} {LACKING[error.errno]}"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    said = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
    return f"no connection: {said.lower()}"


def _pause_s(answer: Answer, before: int) -> float:
    """How long a busy server wants to be left alone: Retry-After in seconds, else ever longer."""
    said = answer.headers.get(b"retry-after", b"").strip()
    seconds = float(said) if said.isdigit() else FIRST_PAUSE_S * 2**before
    return min(seconds, LONGEST_PAUSE_S)
