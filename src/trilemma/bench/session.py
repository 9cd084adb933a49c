"""From outside asyncio: a server found out about, then loads sent to it, all inside one event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from trilemma.bench.answer import Ending
from trilemma.bench.drive import Drive, Load, Patience, Watch
from trilemma.bench.endpoint import Endpoint
from trilemma.bench.http import Pool
from trilemma.bench.probe import Found, check_length, probe
from trilemma.bench.prompts import Form
from trilemma.bench.records import Measured
from trilemma.errors import InputError

T = TypeVar("T")
WARM_UP_CLIENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A server that was found out about, with the connections to it; used by one event loop."""

    found: Found
    pool: Pool
    patience: Patience
    watch: Watch

    async def check_lengths(self, load: Load) -> None:
        """Raises InputError where the server would refuse the load's longest request."""
        tokens = load.requests.prompt_tokens + load.requests.output_tokens
        longest = int(tokens.argmax())
        prompt, output = load.requests.prompt_tokens[longest], load.requests.output_tokens[longest]
        await check_length(self.found, self.pool, int(prompt), int(output))

    async def warm_up(self, load: Load, count: int) -> None:
        """Sends the load's first requests with prompts of their own; InputError where none is answered."""
        count = min(count, len(load.requests))
        if not count:
            return
        first = load.requests.take(slice(0, count))
        alone = replace(first, think_s=None)
        warm = Load(requests=alone, clients=min(count, WARM_UP_CLIENTS), salt=load.salt + 1)
        measured = await self.send(warm, stage="warm-up")
        if not measured.endings[str(Ending.DONE)] and not measured.stopped.startswith("stopped"):
            where, said = self.found.dialect.endpoint.origin, next(iter(measured.errors), "nothing")
            raise InputError(where, expected="an answer to one of the warm-up requests", found=said)

    async def send(self, load: Load, *, stage: str = "") -> Measured:
        """One load, measured."""
        drive = Drive(
            load=load, dialect=self.found.dialect, pool=self.pool, patience=self.patience, watch=self.watch, stage=stage
        )
        return await drive.run()


async def with_session(
    endpoint: Endpoint,
    work: Callable[[Session], Coroutine[Any, Any, T]],
    *,
    model: str | None = None,
    form: Form | None = None,
    patience: Patience,
    watch: Watch,
) -> T:
    """`work` on a session with the endpoint; every connection is closed at its end. Raises InputError as `probe`."""
    pool = Pool(endpoint)
    try:
        found = await probe(endpoint, model=model, form=form, pool=pool)
        return await work(Session(found=found, pool=pool, patience=patience, watch=watch))
    finally:
        pool.close()


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in an event loop of its own, uvloop's where it is installed, with as many files as are allowed."""
    _allow_files()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _allow_files() -> None:
    """Each connection is a file, of which a process may have few until it asks for more."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
