import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.bench.sse import LONGEST_EVENT, EventReader, MalformedStream

STREAM = b': hello\n\ndata: {"a": 1}\n\nevent: x\ndata: two\ndata:lines\r\n\r\ndata: [DONE]\n\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def read(pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + reader.finish()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_how_the_network_cuts_them(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(STREAM[low:high] for low, high in zip(edges, edges[1:], strict=False)) == EVENTS


def test_an_event_is_there_as_soon_as_its_last_byte_is():
    reader = EventReader()
    assert reader.feed(b"data: x\n") == []
    assert reader.feed(b"\n") == [b"x"]


def test_a_last_event_without_its_empty_line_counts():
    assert read([b"data: one\n\ndata: two\n"]) == [b"one", b"two"]


@pytest.mark.parametrize("junk", [b"<html>\n\n", b"{}\n\n", b"data: x\n\nnonsense\n\n"])
def test_what_is_no_event_is_malformed(junk):
    with pytest.raises(MalformedStream, match="no server-sent event"):
        read([junk])


def test_an_endless_event_is_malformed():
    with pytest.raises(MalformedStream, match="more than"):
        read([b"data: " + b"x" * (LONGEST_EVENT + 1)])
