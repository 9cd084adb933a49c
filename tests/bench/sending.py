"""Shortcuts: a table of requests, and a run of it against a test's server."""

import asyncio

import numpy as np

from tests.bench.server import Server
from trilemma.bench.drive import Load, Patience
from trilemma.bench.endpoint import parse_endpoint
from trilemma.bench.session import with_session
from trilemma.workload.requests import Requests


def table(n, *, prompt=8, output=3, gap_s=0.0, **more):
    return Requests(
        arrival_s=np.arange(n) * gap_s, prompt_tokens=np.full(n, prompt), output_tokens=np.full(n, output), **more
    )


def send(server: Server, load, *, patience=None, watch=lambda live: True, url="", key=None, **options):
    """The measured run, after the probing requests, which the server forgets."""

    async def all_of_it():
        async with server:
            endpoint = parse_endpoint(server.url + url, key=key)

            async def work(session):
                server.asked.clear()
                server.most_open = 0
                return await session.send(load)

            return await with_session(
                endpoint, work, patience=patience or Patience(timeout_s=30), watch=watch, **options
            )

    return asyncio.run(all_of_it())


def of(requests, **more) -> Load:
    return Load(requests=requests, **more)


def probing(asked):
    """Whether a request is one of those that find out what a server takes."""
    count = asked.get("max_tokens", asked.get("max_completion_tokens"))
    return count == 4  # noqa: PLR2004 - probe.PROBE_TOKENS
