"""One streamed answer: when each token came, and what the server says of it at the end."""

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter_ns
from typing import Any

from trilemma.bench.endpoint import Route
from trilemma.bench.sse import EventReader, MalformedStream, shown

MOST_OF_A_BODY = 1 << 20  # bytes kept of an answer that is no stream: what went wrong stands at its beginning
TEXT_KEYS = ("content", "reasoning_content", "reasoning", "tool_calls")  # of a chat delta, any of which is a token
_decode = json.JSONDecoder().decode


class Ending(StrEnum):
    """How a request ended. REFUSED: by an answer that says so; FAILED: in any other way; TIMED_OUT: not at all."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the server counts them; `cached_tokens` of the prompt were in its prefix cache (None: not said)."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


class Answer:
    """Hears one answer (http.Reply). `token_ns` are the times of its chunks with text, perf_counter_ns, in order."""

    __slots__ = (
        "_is_chat", "_message", "_reader", "ended_ns", "ending", "finish_reason", "finished", "is_stale", "status",
        "headers", "token_ns", "usage", "why",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.token_ns: list[int] = []
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.ending: Ending | None = None
        self.why = ""
        self.ended_ns = 0
        self.is_stale = False
        self._is_chat = route is Route.CHAT
        self._reader: EventReader | None = None
        self._message = bytearray()

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers: whether a stream follows."""
        self.status, self.headers = status, headers
        if status == 200 and headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            self._reader = EventReader()

    def body(self, data: bytes, at_ns: int) -> None:
        """A piece of the stream."""
        if self.ending is not None:
            return
        if self._reader is None:
            if len(self._message) < MOST_OF_A_BODY:
                self._message += data
            return
        try:
            for event in self._reader.feed(data):
                self._event(event, at_ns)
        except MalformedStream as error:
            self.fail(Ending.FAILED, f"malformed stream: {error}", at_ns)

    def end(self, at_ns: int) -> None:
        """The answer is whole: whether it is a good one."""
        if self.ending is not None:
            return
        if self.status != 200:
            self._refused(at_ns)
            return
        if self._reader is None:
            kind = self.headers.get(b"content-type", b"nothing").decode("latin-1")
            self.fail(Ending.FAILED, f"no stream of events but {kind}: {shown(bytes(self._message))}", at_ns)
            return
        try:
            for event in self._reader.finish():
                self._event(event, at_ns)
        except MalformedStream as error:
            self.fail(Ending.FAILED, f"malformed stream: {error}", at_ns)
        if self.ending is not None:
            return
        if self.finish_reason is None:
            self.fail(Ending.FAILED, "the stream ended before the answer did", at_ns)
        elif not self.token_ns:
            self.fail(Ending.FAILED, "an answer without a token", at_ns)
        else:
            self._ends(Ending.DONE, "", at_ns)

    def lost(self, why: str, at_ns: int, *, is_stale: bool) -> None:
        """The connection is gone."""
        self.is_stale = is_stale
        self.fail(Ending.FAILED, why, at_ns)

    def fail(self, ending: Ending, why: str, at_ns: int | None = None) -> None:
        """Ends the answer; the first ending holds."""
        if self.ending is None:
            self._ends(ending, why, perf_counter_ns() if at_ns is None else at_ns)

    @property
    def message(self) -> str:
        """What a refusal says, in one line."""
        try:
            said = json.loads(bytes(self._message))
        except ValueError:
            return shown(bytes(self._message), 300) if self._message else "no explanation"
        for key in ("error", "message", "detail"):
            if isinstance(said, dict) and said.get(key):
                said = said[key]
        return str(said).replace("\n", " ")[:500]

    @property
    def text(self) -> bytes:
        """The body of an answer that is no stream."""
        return bytes(self._message)

    def _event(self, data: bytes, at_ns: int) -> None:
        if data == b"[DONE]":
            return
        try:
            chunk = _decode(data.decode())
            choices = chunk.get("choices")
            if chunk.get("usage"):
                self.usage = _usage(chunk["usage"])
            if choices:
                self._choice(choices[0], at_ns)
            elif choices is None and chunk.get("error"):
                error = chunk["error"]
                said = error.get("message", error) if isinstance(error, dict) else error
                self.fail(Ending.FAILED, f"an error inside the stream: {said}", at_ns)
        except (ValueError, TypeError, AttributeError, LookupError):
            raise MalformedStream(shown(data)) from None

    def _choice(self, choice: dict[str, Any], at_ns: int) -> None:
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        if self._is_chat:
            delta = choice.get("delta") or {}
            is_token = any(delta.get(key) for key in TEXT_KEYS)
        else:
            # A token may have no text of its own (half of a character); the end without text is no token.
            text = choice["text"]
            is_token = bool(text) or not choice.get("finish_reason")
        if is_token:
            self.token_ns.append(at_ns)

    def _refused(self, at_ns: int) -> None:
        if 300 <= self.status < 400:
            where = self.headers.get(b"location", b"nowhere").decode("latin-1")
            self._ends(Ending.REFUSED, f"HTTP {self.status}, a redirect to {where}, not followed", at_ns)
        else:
            self._ends(Ending.REFUSED, f"HTTP {self.status}: {self.message}", at_ns)

    def _ends(self, ending: Ending, why: str, at_ns: int) -> None:
        self.ending, self.why, self.ended_ns = ending, why, at_ns
        if not self.finished.done():
            self.finished.set_result(None)


def _usage(said: dict[str, Any]) -> Usage:
    details = said.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    return Usage(
        prompt_tokens=int(said["prompt_tokens"]),
        output_tokens=int(said.get("completion_tokens") or 0),
        cached_tokens=None if cached is None else int(cached),
    )
