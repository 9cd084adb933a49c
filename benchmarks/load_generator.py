"""What the load generator of `trilemma bench` can do, and what it costs.

    python benchmarks/load_generator.py [--json] [--case NAME]... [--seconds S] [--compare] [--list]

A server of the same kind as real ones (HTTP/1.1, one server-sent event a token) runs in another process and streams
words at a pace, computing nothing, the first after 0 to 60 ms. The generator runs in this process, on the same
machine, so both share its cores: `cpu_share` is this process's time on a core, `server_cpu_share` the other one's.
Requests and tokens per second are those while requests were sent, without the first quarter.

- `streams_1000`: 1,000 clients, each with an answer of 25 tokens under way all the time, 18 ms between tokens.
- `streams_1000_long`: 1,000 clients with answers of 200 tokens, 18 ms between tokens.
- `open_500`: 500 requests/s arriving by chance (Poisson), answers of 25 tokens. How late they are sent is
  `scheduling_error_p99_ms`.
- `open_2100`: 2,100 requests/s, answers of 25 tokens: 52,500 tokens/s.

`--compare` sends the requests of 128 clients through this generator, aiohttp and httpx, where they are installed, and
gives requests and tokens per second of processor time: what one core could do at most.
"""

import argparse
import asyncio
import collections
import heapq
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from trilemma.bench.drive import Load, Patience
from trilemma.bench.endpoint import parse_endpoint
from trilemma.bench.records import NS_PER_S, Measured
from trilemma.bench.session import Session, run_loop, with_session
from trilemma.bench.validity import validity
from trilemma.workload.requests import Requests

FIRST_S, GAP_S = 0.06, 0.018  # until the first token at most, and between tokens
PROMPT_TOKENS = 100
CASES = {
    "streams_1000": {"clients": 1000, "output": 25},
    "streams_1000_long": {"clients": 1000, "output": 200},
    "open_500": {"rate": 500.0, "output": 25},
    "open_2100": {"rate": 2100.0, "output": 25},
}


# The server.


def _event(document: object) -> bytes:
    data = b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(**fields: object) -> dict[str, object]:
    return {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1700000000, "model": "mock"} | fields


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHOICE = {"index": 0, "text": " word", "logprobs": None, "finish_reason": None, "stop_reason": None}
TOKEN = _event(_chunk(choices=[CHOICE], usage=None))
LAST_TOKEN = _event(_chunk(choices=[CHOICE | {"finish_reason": "length"}], usage=None))
MODELS = json.dumps({"object": "list", "data": [{"id": "mock", "object": "model", "max_model_len": 100_000}]}).encode()


class Pacer:
    """Writes each stream's next token when it is due; streams are in the order in which they are due."""

    def __init__(self) -> None:
        self.first: list[Any] = []
        self.rest: collections.deque[Any] = collections.deque()
        self.is_waiting, self.serial = False, 0

    def add(self, transport: asyncio.Transport, prompt: int, output: int) -> None:
        self.serial += 1
        due = time.perf_counter() + FIRST_S * random.random()  # noqa: S311 - so that streams do not keep step
        heapq.heappush(self.first, (due, self.serial, transport, prompt, output))
        self._wait()

    def _wait(self) -> None:
        if not self.is_waiting and (self.first or self.rest):
            self.is_waiting = True
            asyncio.get_running_loop().call_later(0.001, self._write)

    def _write(self) -> None:
        now = time.perf_counter()
        while self.first and self.first[0][0] <= now:
            due, _, *stream = heapq.heappop(self.first)
            self._token(due, *stream, stream[-1])
        while self.rest and self.rest[0][0] <= now:
            self._token(*self.rest.popleft())
        self.is_waiting = False
        self._wait()

    def _token(self, due: float, transport: asyncio.Transport, prompt: int, output: int, left: int) -> None:
        if transport.is_closing():
            return
        if left > 1:
            transport.write(TOKEN)
            self.rest.append((due + GAP_S, transport, prompt, output, left - 1))
            return
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        transport.write(LAST_TOKEN + _event(_chunk(choices=[], usage=usage)) + _event(b"[DONE]") + b"0\r\n\r\n")


class Connection(asyncio.Protocol):
    def __init__(self, pacer: Pacer) -> None:
        self.pacer, self.rest = pacer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head = self.rest[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = int(length.split(b"\r\n")[0]) if length else 0
            if len(self.rest) < end + 4 + size:
                return
            body, self.rest = self.rest[end + 4 : end + 4 + size], self.rest[end + 4 + size :]
            if head.startswith(b"get"):
                start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(MODELS)
                self.transport.write(start + MODELS)
                continue
            asked = json.loads(body)
            self.transport.write(HEAD)
            self.pacer.add(self.transport, len(asked["prompt"]), asked["max_tokens"])


async def serve() -> None:
    pacer = Pacer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pacer), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server_process():
    """(port, process) of a server that runs meanwhile."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process
        finally:
            process.terminate()


def cpu_s(process: subprocess.Popen[str]) -> float:
    """Processor time of another process so far, seconds; 0 where the system does not say."""
    try:
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The cases.


def load_of(case: dict[str, float], seconds: float) -> Load:
    clients, output, rate = int(case.get("clients", 0)), int(case["output"]), case.get("rate", 0.0)
    answer_s = FIRST_S + GAP_S * (output - 1)
    n = int(rate * seconds) if rate else int(clients * max(1.0, seconds / answer_s))
    gaps = np.random.default_rng(0).standard_exponential(n) / rate if rate else np.zeros(n)
    requests = Requests(
        arrival_s=np.cumsum(gaps), prompt_tokens=np.full(n, PROMPT_TOKENS), output_tokens=np.full(n, output)
    )
    return Load(requests=requests, clients=clients)


def measure(port: int, case: dict[str, float], seconds: float) -> Measured:
    async def work(session: Session) -> Measured:
        load = load_of(case, seconds)
        await session.warm_up(load, 8)
        return await session.send(load)

    endpoint = parse_endpoint(f"http://127.0.0.1:{port}")
    return run_loop(with_session(endpoint, work, patience=Patience(timeout_s=120), watch=lambda live: True))


def steady_rates(measured: Measured) -> tuple[float, float]:
    """Requests and tokens a second while requests were sent, its first quarter (which fills the server) left out."""
    sent_ns = max(record.begun_ns for record in measured.records) - measured.start_ns
    low, high = measured.start_ns + 0.25 * sent_ns, measured.start_ns + 0.95 * sent_ns
    times_ns = np.concatenate([np.frombuffer(record.token_ns, np.int64) for record in measured.records])
    ended_ns = np.array([record.ended_ns for record in measured.records])
    counts = [int(((times >= low) & (times < high)).sum()) for times in (ended_ns, times_ns)]
    return counts[0] * NS_PER_S / (high - low), counts[1] * NS_PER_S / (high - low)


def result_of(name: str, seconds: float) -> dict[str, object]:
    with server_process() as (port, process):
        before_s, began = cpu_s(process), time.perf_counter()
        measured = measure(port, CASES[name], seconds)
        server_share = (cpu_s(process) - before_s) / (time.perf_counter() - began)
    verdict = validity(measured)
    tokens = sum(len(record.token_ns) for record in measured.records)
    requests_per_s, tokens_per_s = steady_rates(measured)
    gaps_s = np.concatenate([np.diff(np.frombuffer(r.token_ns, np.int64)) for r in measured.records]) / NS_PER_S
    return {
        "case": name,
        "requests": len(measured.records),
        "done": measured.endings["done"],
        "requests_per_s": round(requests_per_s),
        "tokens_per_s": round(tokens_per_s),
        "scheduling_error_p50_ms": round(1000 * verdict.sending_p50_s, 2),
        "scheduling_error_p99_ms": round(1000 * verdict.sending_p99_s, 2),
        "loop_lag_p99_ms": round(1000 * verdict.lag_p99_s, 2),
        "gap_p50_ms": round(1000 * float(np.median(gaps_s)), 2),
        "gap_p99_ms": round(1000 * float(np.percentile(gaps_s, 99)), 2),
        "valid": verdict.is_valid,
        "cpu_share": round(measured.cpu_share, 2),
        "requests_per_cpu_s": round(len(measured.records) / (measured.cpu_share * measured.span_s)),
        "tokens_per_cpu_s": round(tokens / (measured.cpu_share * measured.span_s)),
        "server_cpu_share": round(server_share, 2),
    }


# Other clients.


async def _tokens(pieces: Any) -> int:
    """What any client has to do with a stream: cut it into events, read them, take the time."""
    rest, times = b"", []
    async for data in pieces:
        now = time.perf_counter_ns()
        *events, rest = (rest + data).split(b"\n\n")
        times += [now for event in events if event != b"data: [DONE]" and json.loads(event[6:])["choices"]]
    return len(times)


async def _through(name: str, url: str, clients: int, n: int, output: int) -> dict[str, object]:
    body = json.dumps({"prompt": [1] * PROMPT_TOKENS, "max_tokens": output, "stream": True}).encode()
    left = iter(range(n))

    async def send_all(one: Any) -> float:
        async def client() -> None:
            for _ in left:
                await one()

        begun = time.process_time()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.process_time() - begun

    if name == "aiohttp":
        import aiohttp

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one() -> int:
                async with session.post(url, data=body) as response:
                    return await _tokens(response.content.iter_any())

            busy_s = await send_all(one)
    else:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=120) as session:

            async def one() -> int:
                async with session.stream("POST", url, content=body) as response:
                    return await _tokens(response.aiter_raw())

            busy_s = await send_all(one)
    return {"case": name, "requests_per_cpu_s": round(n / busy_s), "tokens_per_cpu_s": round(n * output / busy_s)}


def compare(name: str, n: int) -> dict[str, object]:
    with server_process() as (port, _):
        if name == "trilemma":
            measured = measure(port, {"clients": 128, "output": 25}, n * (FIRST_S + 24 * GAP_S) / 128)
            per_s = len(measured.records) / (measured.cpu_share * measured.span_s)
            return {"case": name, "requests_per_cpu_s": round(per_s), "tokens_per_cpu_s": round(25 * per_s)}
        url = f"http://127.0.0.1:{port}/v1/completions"
        return run_loop(_through(name, url, 128, n, 25))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        run_loop(serve())
        return
    if asked.list:
        print("\n".join(CASES))
        return
    results = [result_of(name, asked.seconds) for name in asked.case or CASES]
    if asked.compare:
        for name, n in (("trilemma", 4000), ("aiohttp", 4000), ("httpx", 300)):
            try:
                results.append(compare(name, n))
            except ImportError:
                print(f"{name} is not installed", file=sys.stderr)
    if asked.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        print("  ".join(f"{key}={value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
