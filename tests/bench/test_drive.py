"""A run against a scripted server: nothing is lost, nothing is hidden, times are in order."""

import asyncio
from time import perf_counter_ns

import numpy as np
import pytest

from tests.bench.sending import of, probing, send, table
from tests.bench.server import EVENT_STREAM, Server
from trilemma.bench.answer import Answer, Ending
from trilemma.bench.drive import EARLY_NS, Patience
from trilemma.workload.arrivals import Arrivals
from trilemma.workload.lengths import Fixed
from trilemma.workload.sessions import FixedTime, Sessions, generate_sessions


def scripted(behave):
    """A server that answers probing requests well and leaves the others to `behave`."""

    async def either(server, say):
        await (say.whole() if probing(say.asked) else behave(server, say))

    return Server(either)


def conserved(measured):
    return sum(measured.endings.values()) == len(measured.records)


def test_every_token_has_its_own_time_between_those_at_the_server(monkeypatch):
    written, read = [], asyncio.Event()
    hear = Answer.body

    def body(self, data, at_ns):
        hear(self, data, at_ns)
        read.set()

    monkeypatch.setattr(Answer, "body", body)

    async def one_by_one(server, say):
        await say.head()
        for i in range(5):
            read.clear()
            written.append(perf_counter_ns())
            await say.token(finish_reason="length" if i == 4 else None)
            await read.wait()
        await say.end()

    measured = send(scripted(one_by_one), of(table(3, output=5), clients=1))
    assert measured.endings["done"] == 3
    times = np.array([record.token_ns for record in measured.records]).ravel()
    written.append(perf_counter_ns())
    assert all(low < time < high for low, time, high in zip(written, times, written[1:], strict=False))
    for record in measured.records:
        assert record.intended_ns - EARLY_NS <= record.begun_ns <= record.sent_ns < record.token_ns[0]
        assert record.token_ns[-1] <= record.ended_ns


def test_what_is_sent_is_done_refused_failed_or_timed_out():
    async def mixed(server, say):
        kind = len(server.asked) % 5
        if kind == 0:
            await say.refuse(400, "too long")
        elif kind == 1:
            await say.head()
            await say.token()
            say.die()
        elif kind == 2:
            await say.head()
            await say.token()
            await asyncio.Event().wait()
        else:
            await say.whole()

    measured = send(scripted(mixed), of(table(20), clients=4), patience=Patience(timeout_s=0.3))
    assert measured.endings == {"done": 8, "refused": 4, "failed": 4, "timed out": 4}
    assert conserved(measured)
    assert measured.unsent == 0
    assert measured.stopped == ""
    assert sum(measured.errors.values()) == 12
    assert measured.errors["HTTP 400: too long"] == 4
    outcomes = measured.outcomes()
    assert np.bincount(outcomes.status, minlength=3).tolist() == [8, 4, 8]  # finished, refused, failed
    assert int(outcomes.timings.finished.sum()) == 8


def test_lengths_are_asked_for_exactly_and_counted_by_usage():
    requests = table(6, prompt=5)
    requests.prompt_tokens[:] = [5, 40, 17, 1, 9, 33]
    requests.output_tokens[:] = [1, 7, 2, 3, 11, 5]
    server = Server()
    measured = send(server, of(requests, clients=1))
    assert [len(asked["prompt"]) for asked in server.asked] == requests.prompt_tokens.tolist()
    for asked, output in zip(server.asked, requests.output_tokens.tolist(), strict=True):
        assert asked["max_tokens"] == asked["min_tokens"] == output
        assert asked["ignore_eos"] is True
        assert asked["stream_options"] == {"include_usage": True}
    timings = measured.outcomes().timings
    assert timings.prompt_tokens.tolist() == requests.prompt_tokens.tolist()
    assert timings.output_tokens.tolist() == requests.output_tokens.tolist()
    assert [len(record.token_ns) for record in measured.records] == requests.output_tokens.tolist()


def test_an_open_loop_waits_for_nobody():
    everybody = asyncio.Event()

    async def when_all_are_there(server, say):
        if len(server.asked) == 30:
            everybody.set()
        await everybody.wait()
        await say.whole()

    requests = table(30, gap_s=0.002)
    measured = send(scripted(when_all_are_there), of(requests))
    assert measured.endings["done"] == 30
    due = [record.intended_ns - measured.start_ns for record in measured.records]
    assert due == np.rint(requests.arrival_s * 1e9).astype(int).tolist()
    assert all(record.begun_ns >= record.intended_ns - EARLY_NS for record in measured.records)


@pytest.mark.parametrize("clients", [1, 3, 8])
def test_a_closed_loop_has_as_many_requests_open_as_clients_and_never_more(clients):
    full = asyncio.Event()

    async def when_full(server, say):
        if server.open == clients:
            full.set()
        await full.wait()
        await say.whole()

    server = scripted(when_full)
    measured = send(server, of(table(40), clients=clients))
    assert measured.endings["done"] == 40
    assert server.most_open == clients


def test_a_closed_loop_sends_when_the_answer_is_there():
    measured = send(Server(), of(table(10), clients=1))
    records = measured.records
    for before, after in zip(records, records[1:], strict=False):
        assert after.intended_ns == before.ended_ns
        assert after.begun_ns >= before.ended_ns


def sessions(turns=3, count=2):
    chat = Sessions(
        turns=Fixed(tokens=turns), user_tokens=Fixed(tokens=20), output_tokens=Fixed(tokens=12),
        think_time=FixedTime(time_s=0.02), system_prompt_tokens=32,
    )  # fmt: skip
    return generate_sessions(Arrivals(process="batch", requests=count), chat)


def test_a_turn_follows_the_answer_to_the_one_before():
    server = Server()
    measured = send(server, of(sessions()))
    assert measured.endings["done"] == 6
    for session in range(2):
        turns = [record for record in measured.records if record.index // 3 == session]
        for before, after in zip(turns, turns[1:], strict=False):
            assert after.intended_ns == before.ended_ns + 20_000_000
    by_length = sorted(server.asked, key=lambda asked: len(asked["prompt"]))
    assert by_length[0]["prompt"][:32] == by_length[-1]["prompt"][:32], "the system prompt is shared"
    assert measured.outcomes().session.tolist() == [0, 0, 0, 1, 1, 1]


def test_no_turn_follows_a_failure():
    async def refuse_second(server, say):
        await (say.whole() if len(say.asked["prompt"]) < 60 else say.refuse(400, "no"))

    measured = send(scripted(refuse_second), of(sessions(turns=4)))
    assert measured.endings == {"done": 2, "refused": 2, "failed": 0, "timed out": 0}
    assert measured.unsent == 4


def test_a_duration_ends_the_sending():
    measured = send(Server(), of(table(50, gap_s=0.01), duration_s=0.105))
    assert len(measured.records) == 11
    assert measured.endings["done"] == 11
    assert measured.unsent == 39


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (b"data: {not json\n\n", "malformed stream"),
        (b"data: 7\n\n", "malformed stream"),
        (b'data: {"choices": [7]}\n\n', "malformed stream"),
        (b"<html>\n\n", "malformed stream"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "an error inside the stream: out of memory"),
        (b"data: [DONE]\n\n", "the stream ended before the answer did"),
    ],
)
def test_malformed_streams_are_failures_and_end_a_run_that_has_nothing_else(junk, why):
    async def malformed(server, say):
        await say.head()
        await say.token()
        await say.piece(junk)
        await say.raw(b"0\r\n\r\n")

    measured = send(scripted(malformed), of(table(40), clients=2), patience=Patience(timeout_s=30, most_failures=5))
    assert conserved(measured)
    assert measured.endings["done"] == 0
    assert measured.stopped.startswith("5 requests in a row failed")
    assert why in measured.stopped
    assert measured.unsent > 0


@pytest.mark.parametrize("headers", [{"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, {}])
def test_an_answer_that_is_no_stream_is_a_failure(headers):
    async def other(server, say):
        await say.head(200, headers or {"Content-Length": "0"})
        await say.raw(b"2\r\n{}\r\n0\r\n\r\n" if headers else b"")

    measured = send(scripted(other), of(table(2), clients=1))
    assert measured.endings["failed"] == 2
    assert next(iter(measured.errors)).startswith("no stream of events")


def test_malformed_http_is_a_failure():
    async def garbage(server, say):
        await say.raw(b"SMTP ready\r\n\r\n")

    measured = send(scripted(garbage), of(table(2), clients=1))
    assert measured.endings["failed"] == 2
    assert "malformed HTTP" in next(iter(measured.errors))


def test_a_server_that_dies_ends_the_run_with_what_there_is():
    async def dies(server, say):
        if len(server.asked) < 10:
            await say.whole()
            return
        server.stop()
        for task in server.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        say.die()

    measured = send(scripted(dies), of(table(500), clients=4))
    assert measured.endings["done"] >= 9 - 3
    assert conserved(measured)
    assert measured.stopped.startswith("20 requests in a row failed")
    assert measured.unsent > 0
    assert np.isfinite(measured.outcomes().timings.done_s).sum() == measured.endings["done"]


def test_what_was_under_way_when_a_replica_died_counts_once():
    everybody = asyncio.Event()

    async def one_crash(server, say):
        if len(server.asked) > 30:
            await say.whole()
            return
        if len(server.asked) == 30:
            everybody.set()
        await say.head()
        await everybody.wait()
        say.die()

    measured = send(scripted(one_crash), of(table(60), clients=30), patience=Patience(timeout_s=30, most_failures=3))
    assert measured.stopped == ""
    assert measured.endings == {"done": 30, "refused": 0, "failed": 30, "timed out": 0}


def test_a_busy_server_is_asked_again_and_the_retries_are_counted():
    async def busy_twice(server, say):
        if len(server.asked) <= 2:
            await say.refuse(429 if len(server.asked) == 1 else 503, "busy", **{"Retry-After": "0"})
        else:
            await say.whole()

    measured = send(scripted(busy_twice), of(table(2), clients=1), patience=Patience(timeout_s=30, retries=2))
    assert measured.endings["done"] == 2
    assert [record.retries for record in measured.records] == [2, 0]
    assert measured.records[0].sent_ns > measured.records[0].begun_ns


def test_a_server_that_stays_busy_refuses():
    async def busy(server, say):
        await say.refuse(429, "busy", **{"Retry-After": "0"})

    server = scripted(busy)
    measured = send(server, of(table(3), clients=1), patience=Patience(timeout_s=30, retries=1))
    assert measured.endings["refused"] == 3
    assert measured.errors == {"HTTP 429: busy": 3}
    assert len(server.asked) == 6
    assert measured.stopped == "", "a server that says it is busy is alive"


def test_a_connection_the_server_closed_meanwhile_is_no_failure():
    async def closes_after(server, say):
        await say.whole()
        say.writer.transport.close()  # without having said so

    measured = send(scripted(closes_after), of(table(40), clients=1))
    assert measured.endings["done"] == 40
    assert conserved(measured)
    assert sum(record.reconnects for record in measured.records) <= 8, "then it is given new ones"


def test_a_redirect_is_refused_and_nothing_is_sent_there():
    async def run():
        async with Server() as elsewhere:

            async def redirects(server, say):
                await say.json({}, 307, Location=f"{elsewhere.url}/v1/completions")

            return elsewhere, redirects

    elsewhere, redirects = asyncio.run(run())
    measured = send(scripted(redirects), of(table(2), clients=1))
    assert measured.endings["refused"] == 2
    assert "redirect" in next(iter(measured.errors))
    assert elsewhere.heads == []


def test_the_key_goes_with_every_request_and_nothing_else_does():
    server = Server()
    send(server, of(table(2), clients=1), key="k-123")
    assert all("Authorization: Bearer k-123" in head for head in server.heads)
    assert not any("cookie" in head.lower() for head in server.heads)


def test_stopping_ends_what_is_under_way_and_marks_it():
    async def never(server, say):
        await say.head()
        await say.token()
        await asyncio.Event().wait()

    measured = send(scripted(never), of(table(6), clients=3), watch=lambda live: False)
    assert measured.stopped == "stopped by hand"
    assert measured.endings["failed"] == 3
    assert measured.unsent == 3
    assert measured.errors == {"stopped with the run": 3}


def test_sessions_that_wait_end_with_the_run():
    requests = generate_sessions(
        Arrivals(process="batch", requests=2),
        Sessions(
            turns=Fixed(tokens=2), user_tokens=Fixed(tokens=8), output_tokens=Fixed(tokens=2),
            think_time=FixedTime(time_s=3600.0),
        ),
    )  # fmt: skip
    measured = send(Server(), of(requests), watch=lambda live: False)
    assert measured.endings["done"] == 2
    assert measured.unsent == 2


def test_what_the_watcher_raises_comes_out():
    def broken(live):
        raise ZeroDivisionError

    async def never(server, say):
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        send(scripted(never), of(table(2), clients=1), watch=broken)


def test_chats_are_read_too():
    server = Server()
    measured = send(server, of(table(3, prompt=20, output=5), clients=1), url="/v1/chat/completions")
    assert measured.endings["done"] == 3
    assert [len(record.token_ns) for record in measured.records] == [5, 5, 5]
    assert server.asked[0]["messages"][0]["role"] == "user"


def test_a_chat_that_begins_with_its_role_begins_with_its_first_text():
    async def with_role(server, say):
        await say.head()
        await say.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await say.event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
        await say.token()
        await say.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        await say.usage(8, 2, prompt_tokens_details={"cached_tokens": 5})
        await say.end()

    measured = send(scripted(with_role), of(table(1), clients=1), url="/v1/chat/completions")
    assert len(measured.records[0].token_ns) == 2
    assert measured.outcomes().hit_tokens.tolist() == [5]


def test_an_answer_until_the_end_of_the_connection_is_whole():
    async def no_length(server, say):
        await say.head(200, {"Content-Type": EVENT_STREAM["Content-Type"], "Connection": "close"})
        for reason in (None, "length"):
            await say.raw(
                b'data: {"choices": [{"text": "w", "finish_reason": %s}]}\n\n' % (b'"x"' if reason else b"null")
            )
        await say.raw(b"data: [DONE]\n\n")
        say.writer.close()

    measured = send(scripted(no_length), of(table(3), clients=1))
    assert measured.endings["done"] == 3, measured.errors
    assert all(record.ending is Ending.DONE for record in measured.records)
