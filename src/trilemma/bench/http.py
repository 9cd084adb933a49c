"""HTTP/1.1 over asyncio, no more than a load generator needs: one request at a time on each connection, kept open.

A general client costs more processor time per token than a token is worth (docs/guide/bench.md has the measurement),
and stamps tokens when a task gets to them instead of when they arrive. Here a token's time is taken in the callback
that reads the socket. Parsing is llhttp's, through httptools. Redirects are not followed, proxies not used, cookies not
kept.
"""

import asyncio
import socket
import ssl
from time import perf_counter_ns
from typing import Protocol, cast

import httptools

from trilemma.bench.endpoint import Endpoint

CONNECT_S = 10.0
STALE_NS = 500_000_000  # a kept connection that breaks sooner was closed before the request got there
MOST_STALE = 8
AT_ONCE = 64  # connections opened together: servers queue few, and make the others wait a second


class Reply(Protocol):
    """What hears of an answer as it comes; `at_ns` is when the bytes were read (perf_counter_ns)."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers, names in lower case."""

    def body(self, data: bytes, at_ns: int) -> None:
        """A piece of the body."""

    def end(self, at_ns: int) -> None:
        """The answer is whole."""

    def lost(self, why: str, at_ns: int, *, is_stale: bool) -> None:
        """There will be no more of it. `is_stale`: a kept connection that turned out to be closed already."""


class Connection(asyncio.Protocol):
    """One connection; `is_open` until either side closes it."""

    def __init__(self) -> None:
        self.is_open = False
        self.uses = 0
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._has_head = self._has_bytes = False
        self._now_ns = self._sent_ns = 0

    @property
    def is_free(self) -> bool:
        """Whether another request may be sent."""
        return self.is_open and self._reply is None

    def send(self, request: bytes, reply: Reply) -> None:
        """Sends a request whose answer `reply` hears. ValueError while another is under way."""
        if self._reply is not None or self._transport is None:
            raise ValueError("one request at a time")
        self._reply, self._parser = reply, httptools.HttpResponseParser(self)
        self._headers, self._has_head, self._has_bytes = {}, False, False
        self.uses += 1
        self._sent_ns = perf_counter_ns()
        self._transport.write(request)

    def close(self) -> None:
        """Closes at once; a reply under way hears nothing more."""
        self._reply = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport, self.is_open = cast(asyncio.Transport, transport), True  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Bytes came: the one place where a token's time is taken."""
        self._now_ns = perf_counter_ns()
        if self._parser is None or self._reply is None:  # nobody asked
            self.close()
            return
        self._has_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._lose("the server changed the protocol")
        except httptools.HttpParserError as error:
            self._lose(f"malformed HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Either side closed the connection, or it broke."""
        self.is_open = False
        self._now_ns = perf_counter_ns()
        reply = self._reply
        if reply is None:
            return
        # Without a length the end of the connection is the end of the answer.
        ends_here = self._has_head and not self._headers.keys() & {b"content-length", b"transfer-encoding"}
        if ends_here and error is None:
            self._reply = None
            reply.end(self._now_ns)
            return
        why = "the server closed the connection" if error is None else f"the connection broke: {error}"
        self._lose(why)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """All headers are there."""
        if self._parser is None or self._reply is None:
            return
        status = self._parser.get_status_code()
        if status >= 200:  # 1xx only announce the answer
            self._has_head = True
            self._reply.head(status, self._headers)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._reply is not None:
            self._reply.body(data, self._now_ns)

    def on_message_complete(self) -> None:
        """The answer, or the announcement of one, is whole."""
        if not self._has_head:
            self._headers = {}
            return
        reply, parser, self._reply, self._parser = self._reply, self._parser, None, None
        if parser is not None and not parser.should_keep_alive():
            self.close()
        if reply is not None:
            reply.end(self._now_ns)

    def _lose(self, why: str) -> None:
        reply, soon = self._reply, self._now_ns - self._sent_ns < STALE_NS
        is_stale = soon and self.uses > 1 and not self._has_bytes
        self.close()
        if reply is not None:
            reply.lost(why, self._now_ns, is_stale=is_stale)


class Pool:
    """The connections to one endpoint: as many as there are requests under way, each used again when it is free."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.opened = 0
        self.is_keeping = True
        self._stale = 0
        self._idle: list[Connection] = []
        self._context = ssl.create_default_context() if endpoint.is_encrypted else None
        self._addresses: list[str] = []

    async def take(self, *, fresh: bool = False) -> Connection:
        """A free connection, or a new one; OSError (TimeoutError among them) where none can be had."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return await self._open()

    def give(self, connection: Connection) -> None:
        """Hands a connection back; closed where its answer did not come to an end, or the server keeps none."""
        if connection.is_free and self.is_keeping:
            self._idle.append(connection)
        else:
            connection.close()

    def note_stale(self) -> None:
        """A kept connection was closed: a server that makes a habit of it gets a new one for each request."""
        self._stale += 1
        self.is_keeping = self._stale < MOST_STALE

    async def open_ahead(self, count: int) -> None:
        """Opens connections before they are needed, so that no request waits for them. OSError as `take`."""
        while (wanted := count - len(self._idle)) > 0:
            self._idle += await asyncio.gather(*(self._open() for _ in range(min(wanted, AT_ONCE))))

    def close(self) -> None:
        """Closes what is free; what is in use closes with its request."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _open(self) -> Connection:
        async with asyncio.timeout(CONNECT_S):
            if not self._addresses:
                self._addresses = await self._resolved()
            return await self._connected()

    async def _resolved(self) -> list[str]:
        """The host's addresses, looked up once: a name server's time is no part of a request's."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.endpoint.host, self.endpoint.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))

    async def _connected(self) -> Connection:
        loop, failure = asyncio.get_running_loop(), OSError(f"no address of {self.endpoint.host}")
        server_name = self.endpoint.host if self._context is not None else None
        for address in list(self._addresses):
            try:
                _, connection = await loop.create_connection(
                    Connection, address, self.endpoint.port, ssl=self._context, server_hostname=server_name
                )
            except OSError as error:
                failure = error
                continue
            if self._addresses[0] != address:
                self._addresses.sort(key=lambda other: other != address)  # the one that answers comes first
            self.opened += 1
            return connection
        raise failure
