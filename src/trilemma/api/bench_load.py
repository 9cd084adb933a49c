"""What `bench` sends: a trace, a scenario's workload or fixed lengths, cut and paced as asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trilemma.errors import InputError
from trilemma.metrics.limits import Limit, Metric, parse_limit
from trilemma.units import parse_rate_per_s, parse_time_s
from trilemma.workload.arrivals import Arrivals
from trilemma.workload.lengths import Fixed
from trilemma.workload.requests import Requests
from trilemma.workload.synthetic import generate
from trilemma.workload.traces import read_trace
from trilemma.workload.transform import window

FIXED_REQUESTS = 100  # of fixed lengths, where nothing says how many
MOST_CLIENTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where requests come from: exactly one of a scenario, a trace, and fixed lengths."""

    scenario: Path | None = None
    overrides: Mapping[str, object] | None = None
    catalogue_files: Sequence[Path] = ()
    trace: str | None = None
    trace_format: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What of the requests is sent, and when. `rate` such as "5 req/s" replaces the recorded one, `rate_scale`
    multiplies it; `concurrency` sends by clients instead. `start`, `end` and `duration` are times such as "10 min"."""

    start: str | None = None
    end: str | None = None
    requests: int | None = None
    rate: str | None = None
    rate_scale: float = 1.0
    concurrency: int | None = None
    duration: str | None = None
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """The requests to send and how; `clients` 0 is at their times. `limits` are those to judge by."""

    label: str
    requests: Requests
    clients: int
    duration_s: float | None
    limits: tuple[Limit, ...]
    notes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """How requests follow each other, in words."""
        if self.clients:
            return "closed loop"
        return "open loop" if self.requests.think_s is None else "sessions"


def sending(source: Source, pace: Pace, limits: Sequence[str]) -> Sending:
    """The requests of a source at a pace. Raises InputError for what does not go together or leaves nothing."""
    label, requests, clients, found_limits = _requests(source, pace)
    notes = []
    if pace.start is not None or pace.end is not None:
        start_s = 0.0 if pace.start is None else parse_time_s(pace.start, where="--start")
        requests = window(requests, start_s, None if pace.end is None else parse_time_s(pace.end, where="--end"))
    if pace.max_model_len is not None:
        fits = requests.prompt_tokens + requests.output_tokens <= pace.max_model_len
        if not fits.all():
            notes.append(f"{int((~fits).sum()):,} of {len(requests):,} requests are too long and were left out")
            requests = _whole_sessions(requests, fits)
    if pace.requests is not None:
        requests = requests.take(slice(0, pace.requests))
    if not len(requests):
        raise InputError("requests", expected="at least one to send", found="none left")
    clients = pace.concurrency or clients
    requests = _paced(requests, pace, clients)
    duration_s = None if pace.duration is None else parse_time_s(pace.duration, where="--duration")
    if duration_s is not None and duration_s <= 0:
        raise InputError("--duration", expected="a time above zero", found=repr(pace.duration))
    wanted = (*found_limits, *(parse_limit(text, where="--limit") for text in limits))
    if (keys := [limit.key for limit in wanted]) and len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError("--limit", expected="each number bounded once", found=f"{twice} twice")
    return Sending(
        label=label, requests=requests, clients=clients, duration_s=duration_s, limits=wanted, notes=tuple(notes)
    )


def _requests(source: Source, pace: Pace) -> tuple[str, Requests, int, tuple[Limit, ...]]:
    """(name, requests, clients of a closed loop, limits) of the one source."""
    fixed = source.prompt_tokens is not None or source.output_tokens is not None
    ways = {
        "--scenario": source.scenario is not None,
        "--trace": source.trace is not None,
        "--prompt-tokens and --output-tokens": fixed,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) != 1:
        expected = "one of --scenario, --trace, or --prompt-tokens with --output-tokens"
        raise InputError("what to send", expected=expected, found=" and ".join(given) or "none")
    if source.scenario is not None:
        from trilemma.api.question import ask  # the planner's rooms load slowly, and a trace needs none of them

        asked = ask(
            source.scenario, overrides=source.overrides, catalogue_files=source.catalogue_files, seed=source.seed
        )
        workload = asked.question.workload
        limits = tuple(
            limit for limit in asked.question.limits if limit.metric is not Metric.DEADLINE or workload.batch
        )
        return f"{asked.question.name}: {workload.label}", workload.requests, workload.clients, limits
    if source.overrides:
        raise InputError("--set", expected="a scenario to change", found="none")
    if source.trace is not None:
        trace = read_trace(source.trace, format=source.trace_format or "auto", seed=source.seed or 0)
        return trace.name, trace.requests, 0, ()
    if source.prompt_tokens is None or source.output_tokens is None:
        raise InputError("what to send", expected="--prompt-tokens and --output-tokens together", found="one of them")
    if pace.rate is None and pace.concurrency is None:
        raise InputError("what to send", expected="--rate or --concurrency beside fixed lengths", found="neither")
    rate = 1.0 if pace.rate is None else parse_rate_per_s(pace.rate, where="--rate")
    if rate <= 0:
        raise InputError("--rate", expected="a rate above zero", found=repr(pace.rate))
    n = pace.requests or FIXED_REQUESTS
    load = generate(
        Arrivals(process="poisson", rate_per_s=rate, requests=n),
        Fixed(tokens=source.prompt_tokens),
        Fixed(tokens=source.output_tokens),
        seed=source.seed or 0,
    )
    return f"{source.prompt_tokens} + {source.output_tokens} tokens", load.requests, 0, ()


def _paced(requests: Requests, pace: Pace, clients: int) -> Requests:
    """The requests at the wanted rate; by clients they are all there at once."""
    if not (math.isfinite(pace.rate_scale) and pace.rate_scale > 0):
        raise InputError("--rate-scale", expected="a number above zero", found=f"{pace.rate_scale:g}")
    if clients:
        if pace.rate is not None or pace.rate_scale != 1:
            raise InputError("--rate", expected="no rate where clients set it", found=f"{clients} clients")
        if requests.think_s is not None:
            raise InputError("--concurrency", expected="requests without think times", found="sessions")
        if clients > MOST_CLIENTS:
            raise InputError("--concurrency", expected=f"at most {MOST_CLIENTS:,} clients", found=f"{clients:,}")
        return replace(requests, arrival_s=np.zeros(len(requests)))
    requests = replace(requests, arrival_s=requests.arrival_s - requests.arrival_s[0])
    factor = pace.rate_scale
    if pace.rate is not None:
        wanted = parse_rate_per_s(pace.rate, where="--rate")
        if not math.isfinite(requests.rate_per_s) or wanted <= 0:
            found = "requests that come all at once" if wanted > 0 else repr(pace.rate)
            raise InputError("--rate", expected="a rate above zero for requests that come over time", found=found)
        factor *= wanted / requests.rate_per_s
    return requests if factor == 1 else requests.at_rate(factor)


def _whole_sessions(requests: Requests, fits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Requests:
    """The requests that fit; of a session those before the first that does not."""
    if requests.session is None or requests.think_s is None:
        return requests.take(fits)
    order = np.argsort(requests.session, kind="stable")
    bad = np.cumsum(~fits[order])
    session = requests.session[order]
    first = np.flatnonzero(np.concatenate([[True], session[1:] != session[:-1]]))
    before: npt.NDArray[np.int64] = np.repeat(bad[first] - ~fits[order][first], np.diff(np.append(first, session.size)))
    kept = np.zeros(len(requests), dtype=np.bool_)
    kept[order] = bad == before
    return requests.take(kept)
