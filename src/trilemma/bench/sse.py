"""Server-sent events, put together from whatever pieces the network delivers."""

LONGEST_EVENT = 1 << 24  # bytes; what is longer is no token


class MalformedStream(Exception):
    """A stream that is no server-sent events, or no chunks of an answer; the text says what came instead."""


class EventReader:
    """The data of each event, as soon as its last byte is there.

    >>> reader = EventReader()
    >>> reader.feed(b"data: one\\n\\nda"), reader.feed(b"ta: two\\r\\n\\r\\n: a comment\\n\\n"), reader.finish()
    ([b'one'], [b'two'], [])
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` ends; raises MalformedStream for what cannot be one."""
        if not self._rest and piece.find(b"\n") == len(piece) - 2 and piece.endswith(b"\n\n") and b"\r" not in piece:
            data = _data(piece[:-2])  # one whole event of one line, as nearly all are
            return [] if data is None else [data]
        text = self._rest + piece if self._rest else piece
        if b"\r" in text:
            # A carriage return at the end may be half of a line end.
            held = b"\r" if text.endswith(b"\r") else b""
            text = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *events, rest = text.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > LONGEST_EVENT:
            raise MalformedStream(f"an event of more than {LONGEST_EVENT:,} bytes")
        return [data for event in events if (data := _data(event)) is not None]

    def finish(self) -> list[bytes]:
        """What is left at the stream's end: some servers leave out the last empty line."""
        rest, self._rest = self._rest.replace(b"\r", b""), b""
        data = _data(rest)
        return [] if data is None else [data]


def _data(event: bytes) -> bytes | None:
    """The data lines of one event; None where it has none (a comment that keeps the connection alive)."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif name not in {b"", b"event", b"id", b"retry"}:
            raise MalformedStream(f"a line that is no server-sent event: {shown(line)}")
    return b"\n".join(lines) if lines else None


def shown(data: bytes, most: int = 120) -> str:
    """The beginning of some bytes, for a message."""
    text = data[:most].decode("utf-8", "backslashreplace").strip()
    return repr(text + (" ..." if len(data) > most else ""))
