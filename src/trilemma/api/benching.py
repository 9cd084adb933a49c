"""`bench`: a workload sent to a live endpoint, measured in the form of a simulation."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import trilemma
from trilemma.api.bench_knee import Knee, at_knee, find_knee, knee_dict
from trilemma.api.bench_load import Pace, Sending, Source, sending
from trilemma.api.bench_result import measured_dict
from trilemma.bench.answer import Ending
from trilemma.bench.drive import Load, Patience
from trilemma.bench.endpoint import Endpoint, Route, parse_endpoint
from trilemma.bench.live import Live
from trilemma.bench.probe import Found
from trilemma.bench.prompts import Form
from trilemma.bench.records import NS_PER_S, Measured
from trilemma.bench.session import Session, run_loop, with_session
from trilemma.bench.validity import ALLOWED_LAG_S, validity
from trilemma.errors import InputError, did_you_mean
from trilemma.report.files import check_apart
from trilemma.report.requests_file import check_table_file, request_columns, write_table
from trilemma.units import parse_time_s

__all__ = ["BenchFiles", "BenchOptions", "Live", "Pace", "Source", "bench"]

STOPPED = "stopped by hand"
W = TypeVar("W", Route, Form)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How `bench` talks to the server: `model` (None: the only one there), `route` completions or chat, `prompt_form`
    token-ids or text (None: ids where the server takes them), the environment variable that holds the key, and how
    long it waits. `prompt_seed` repeats the prompts of another run, which a prefix cache may still hold."""

    model: str | None = None
    route: str | None = None
    prompt_form: str | None = None
    api_key_env: str | None = None
    insecure_credentials: bool = False
    warmup: int = 4
    timeout: str = "10 min"
    retries: int = 0
    max_client_lag: str | None = None
    prompt_seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFiles:
    """Where a run is written beside its result: a table of requests, and one of the times of all tokens (.parquet,
    .arrow or .csv). None: nowhere."""

    requests: Path | None = None
    tokens: Path | None = None

    def check(self) -> None:
        """Raises InputError or UnsupportedError for what could not be written, before anything is sent."""
        check_apart({"--requests-file": self.requests, "--tokens-file": self.tokens})
        for where, path in (("--requests-file", self.requests), ("--tokens-file", self.tokens)):
            if path is not None:
                check_table_file(path, where=where)

    def write(self, measured: Measured, about: dict[str, str]) -> None:
        """Writes each file whole or not at all."""
        if self.requests is not None:
            write_table(self.requests, _columns(measured), where="--requests-file", about=about)
        if self.tokens is not None:
            write_table(self.tokens, _token_columns(measured), where="--tokens-file", about=about)


def bench(
    url: str,
    *,
    source: Source,
    pace: Pace | None = None,
    options: BenchOptions | None = None,
    limits: Sequence[str] = (),
    files: BenchFiles | None = None,
    knee_step: str | None = None,
    progress: Callable[[Live], bool] = lambda live: True,
) -> dict[str, Any]:
    """Sends requests to an OpenAI-compatible endpoint and measures every token.

    `knee_step`, a time such as "30 s", finds the knee by loads of that length; the result is then that of the last load
    that held. `progress` is called about once a second; once it gives False the run ends with what it has.

    Raises InputError for what cannot be meant, sent there or written, and where nothing was answered at all.
    """
    options, files = options or BenchOptions(), files or BenchFiles()
    files.check()
    endpoint = _endpoint(url, options)
    form = _word(options.prompt_form, Form, "--prompt-form")
    patience = Patience(timeout_s=_positive_s(options.timeout, "--timeout"), retries=options.retries)
    allowed_s = ALLOWED_LAG_S
    if options.max_client_lag is not None:
        allowed_s = _positive_s(options.max_client_lag, "--max-client-lag")
    step_s = None if knee_step is None else _positive_s(knee_step, "--knee-step")
    wanted = sending(source, pace or Pace(), limits)
    work = _Work(sending=wanted, warmup=options.warmup, step_s=step_s, seed=options.prompt_seed)
    found, measured, knee = run_loop(
        with_session(endpoint, work.run, model=options.model, form=form, patience=patience, watch=progress)
    )
    if not measured.records:
        raise InputError(
            endpoint.origin, expected="a request to send", found=measured.stopped or "none in the duration"
        )
    shown = wanted if knee is None else at_knee(wanted, knee)
    result = measured_dict(measured, shown, found, validity(measured, allowed_s=allowed_s))
    if knee is not None:
        result["knee"] = knee_dict(knee, wanted)
    about = {"trilemma": trilemma.__version__, "endpoint": endpoint.origin, "model": found.dialect.model}
    files.write(measured, about | {"source": "measured"})
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is done with a server once it is known: warmed up, then measured, or stepped to its knee."""

    sending: Sending
    warmup: int
    step_s: float | None
    seed: int | None

    async def run(self, session: Session) -> tuple[Found, Measured, Knee | None]:
        """The server, the run that is shown, and the knee where one was looked for."""
        wanted = self.sending
        load = Load(requests=wanted.requests, clients=wanted.clients, duration_s=wanted.duration_s, salt=self.salt())
        await session.check_lengths(load)
        await session.warm_up(load, self.warmup)
        if self.step_s is None:
            return session.found, await session.send(load), None
        knee = await find_knee(session, wanted, step_s=self.step_s, salt=self.salt)
        best = knee.best
        assert best is not None
        return session.found, best.measured, knee

    def salt(self) -> int:
        """What sets a run's prompts apart from every other's; steps of a search must not meet in the cache either."""
        return int.from_bytes(os.urandom(7), "big") if self.seed is None else self.seed


def _endpoint(url: str, options: BenchOptions) -> Endpoint:
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            expected, found = "a variable of the environment that holds the key", "nothing in it"
            raise InputError(f"--api-key-env {options.api_key_env}", expected=expected, found=found)
    route = _word(options.route, Route, "--api")
    return parse_endpoint(url, route=route, key=key, allow_plain_key=options.insecure_credentials)


def _word(text: str | None, words: type[W], where: str) -> W | None:
    """A word as what it stands for."""
    if text is None:
        return None
    try:
        return words(text)
    except ValueError:
        names = [str(word) for word in words]
        hint = did_you_mean(text, names)
        raise InputError(where, expected=f"one of {', '.join(names)}", found=repr(text), hint=hint) from None


def _positive_s(text: str, where: str) -> float:
    seconds = parse_time_s(text, where=where)
    if seconds <= 0:
        raise InputError(where, expected="a time above zero", found=repr(text))
    return seconds


def _columns(measured: Measured) -> dict[str, Any]:
    """One value a request that was sent: a simulation's columns, and behind them what only a client knows."""
    records = measured.records
    columns: dict[str, Any] = dict(request_columns(measured.outcomes()))
    columns["request"] = measured.index
    due_ns = np.array([record.intended_ns for record in records], dtype=np.int64)
    columns["due_s"] = (due_ns - measured.start_ns) / NS_PER_S
    columns["chunks"] = np.array([len(record.token_ns) for record in records], dtype=np.int64)
    columns["retries"] = np.array([record.retries for record in records], dtype=np.int64)
    columns["timed_out"] = np.array([record.ending is Ending.TIMED_OUT for record in records], dtype=np.int64)
    return columns


def _token_columns(measured: Measured) -> dict[str, Any]:
    """One value a chunk with text: its request, its place in the answer, and when it came."""
    counts = [len(record.token_ns) for record in measured.records]
    times_ns = np.concatenate([np.frombuffer(record.token_ns, dtype=np.int64) for record in measured.records])
    place = np.arange(times_ns.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return {
        "request": np.repeat(measured.index, counts),
        "chunk": place,
        "time_s": (times_ns - measured.start_ns) / NS_PER_S,
    }
