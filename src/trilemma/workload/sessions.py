"""Multi-turn sessions: each turn sends the whole conversation again, once its user has thought about the answer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from trilemma.errors import InputError
from trilemma.workload.arrivals import MOST_REQUESTS, Arrivals
from trilemma.workload.lengths import NORMAL_95, Lengths
from trilemma.workload.requests import FloatArray, IntArray, Requests
from trilemma.workload.streams import stream
from trilemma.workload.trace_rows import MOST_TOKENS

MOST_BLOCK_IDS: Final = 250_000_000  # two gigabytes of ids
LONGEST_THINK_S: Final = 30 * 86_400.0
DAY_S: Final = 86_400.0
_CHUNK_IDS: Final = 1 << 22  # ids written at a time: what is held beside the result stays small


class ThinkTime(Protocol):
    """A distribution of the time between an answer and the session's next request."""

    @property
    def mean_s(self) -> float:
        """Its mean, seconds; before cutting where that matters."""
        ...

    def draw(self, random: np.random.Generator, n: int) -> FloatArray:
        """(n,) seconds, none negative. A larger n only adds to the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTime:
    """Always `time_s` seconds; 0 sends the next request at once, as tool calls do."""

    time_s: float

    def __post_init__(self) -> None:
        _check_time("time", self.time_s)

    @property
    def mean_s(self) -> float:
        """`time_s`."""
        return self.time_s

    def draw(self, random: np.random.Generator, n: int) -> FloatArray:  # noqa: ARG002
        """(n,) times `time_s`."""
        return np.full(n, self.time_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialTime:
    """Exponential with mean `mean_s`, cut to `maximum_s`."""

    mean_s: float
    maximum_s: float = DAY_S

    def __post_init__(self) -> None:
        _check_time("mean", self.mean_s)
        _check_time("maximum", self.maximum_s)

    def draw(self, random: np.random.Generator, n: int) -> FloatArray:
        """(n,) seconds up to maximum_s."""
        return np.minimum(self.mean_s * random.standard_exponential(n), self.maximum_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalTime:
    """exp of a normal variable with median `median_s`, cut to `maximum_s`; spread by `p95_s` or by `sigma`, the
    standard deviation of the logarithm, never both.

    >>> round(LognormalTime(median_s=10.0, sigma=1.0).mean_s, 2)
    16.49
    """

    median_s: float
    p95_s: float | None = None
    sigma: float | None = None
    maximum_s: float = DAY_S

    def __post_init__(self) -> None:
        _check_time("median", self.median_s, above=0.0)
        _check_time("maximum", self.maximum_s)
        if (self.p95_s is None) == (self.sigma is None):
            found = "neither" if self.sigma is None else "both"
            raise InputError("p95", expected="p95 or sigma beside the median", found=found)
        if self.p95_s is not None:
            _check_time("p95", self.p95_s)
            if self.p95_s < self.median_s:
                raise InputError("p95", expected=f"at least the median, {self.median_s:g} s", found=f"{self.p95_s:g} s")
        if self.sigma is not None and not 0 <= self.sigma <= 100:
            raise InputError("sigma", expected="a number from 0 to 100", found=repr(self.sigma))

    @property
    def deviation(self) -> float:
        """Standard deviation of the logarithm."""
        return self.sigma or 0.0 if self.p95_s is None else math.log(self.p95_s / self.median_s) / NORMAL_95

    @property
    def mean_s(self) -> float:
        """Mean before cutting."""
        return self.median_s * math.exp(self.deviation**2 / 2)

    def draw(self, random: np.random.Generator, n: int) -> FloatArray:
        """(n,) seconds up to maximum_s."""
        exponent = np.minimum(math.log(self.median_s) + self.deviation * random.standard_normal(n), 700.0)
        return np.minimum(np.exp(exponent), self.maximum_s)


THINK_TIMES: Final[Mapping[str, type[FixedTime | ExponentialTime | LognormalTime]]] = {
    "fixed": FixedTime,
    "exponential": ExponentialTime,
    "lognormal": LognormalTime,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """How conversations go.

    A session has `turns` requests. Each sends a system prompt of `system_prompt_tokens`, everything asked and answered
    so far, and `user_tokens` new ones; it is answered with `output_tokens`, and `think_time` later the next one is
    sent. There are `shared_prefixes` different system prompts, each session having one of them, all equally likely.
    A session ends before a turn whose prompt and output together would exceed `max_model_len`; its first turn is sent
    whatever its length, for the engine to refuse.

    Prefixes are named by blocks of `block_tokens` tokens, whole ones only. Those of a turn cover its prompt and its
    output, so that the next turn finds both.
    """

    turns: Lengths
    user_tokens: Lengths
    output_tokens: Lengths
    think_time: ThinkTime
    system_prompt_tokens: int = 0
    shared_prefixes: int = 1
    max_model_len: int = MOST_TOKENS
    block_tokens: int = 16

    def __post_init__(self) -> None:
        counts = {
            "system_prompt_tokens": (0, MOST_TOKENS), "shared_prefixes": (1, MOST_REQUESTS),
            "max_model_len": (2, MOST_TOKENS), "block_tokens": (1, MOST_TOKENS),
        }  # fmt: skip
        for name, (least, most) in counts.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                expected = f"a whole number from {least} to {most:,}"
                raise InputError(f"sessions.{name}", expected=expected, found=repr(value))
        if self.shared_prefixes > 1 and not self.system_prompt_tokens:
            expected = "system_prompt_tokens above 0 beside several shared_prefixes"
            raise InputError("sessions.system_prompt_tokens", expected=expected, found="0")


def generate_sessions(arrivals: Arrivals, sessions: Sessions, *, seed: int = 0) -> Requests:
    """The requests of sessions that begin by `arrivals`, whose rate and number count sessions.

    A session's turns stand together in order. `arrival_s` of all of them is the session's beginning; when a later turn
    really comes depends on the answers: `think_s` after the one before it (NaN for first turns). Block ids are 0 to
    U - 1, every one in use. Beginnings, turns, user tokens, outputs, think times and system prompts have a random
    stream each, and more sessions leave the first ones as they were (but for the numbering of blocks).

    Raises InputError for closed-loop arrivals, where no session begins in the given duration, and for more requests,
    tokens or block ids than fit.

    >>> from trilemma.workload.lengths import Fixed
    >>> chat = Sessions(turns=Fixed(tokens=3), user_tokens=Fixed(tokens=8), output_tokens=Fixed(tokens=24),
    ...                 think_time=FixedTime(time_s=5.0), system_prompt_tokens=16)
    >>> requests = generate_sessions(Arrivals(process="constant", rate_per_s=0.5, requests=1), chat)
    >>> requests.prompt_tokens.tolist(), requests.arrival_s.tolist(), requests.think_s.tolist()
    ([24, 56, 88], [2.0, 2.0, 2.0], [nan, 5.0, 5.0])
    >>> requests.block_ids.tolist()
    [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]
    """
    if arrivals.closed_loop is not None:
        expected = "arrivals of sessions at a rate or all at once: think times close the loop"
        raise InputError("arrivals.process", expected=expected, found="closed_loop")
    begin_s = arrivals.draw(stream(seed, "workload.arrivals"))
    count = int(begin_s.size)
    if not count:
        raise InputError("arrivals.duration", expected="time for at least one session", found=f"{arrivals.duration_s}")
    turns = sessions.turns.draw(stream(seed, "workload.session_turns"), count)
    if int(turns.sum()) > MOST_REQUESTS:
        found = f"{int(turns.sum()):,} from {count:,} sessions"
        raise InputError("sessions.turns", expected=f"at most {MOST_REQUESTS:,} requests in all", found=found)
    n = int(turns.sum())
    session = np.repeat(np.arange(count), turns)
    first = np.zeros(n, dtype=np.bool_)
    first[np.cumsum(turns) - turns] = True
    user = sessions.user_tokens.draw(stream(seed, "workload.session_user_tokens"), n)
    output = sessions.output_tokens.draw(stream(seed, "workload.output_tokens"), n)
    think_s = sessions.think_time.draw(stream(seed, "workload.session_think_times"), n)
    think_s[first] = np.nan
    # Tokens of the whole table up to a turn, less those up to its session's beginning, are the conversation so far.
    told = np.cumsum(user + output)
    before = np.repeat((told - user - output)[first], turns)
    total = sessions.system_prompt_tokens + told - before
    prompt = total - output
    kept = first | (total <= sessions.max_model_len)  # a conversation only grows: what is cut is a session's end
    if int(prompt[kept].max()) > MOST_TOKENS:
        found = f"one of {int(prompt[kept].max()):,}"
        raise InputError("sessions", expected=f"prompts of at most {MOST_TOKENS:,} tokens", found=found)
    session = session[kept]
    group = stream(seed, "workload.session_prefixes").integers(sessions.shared_prefixes, size=count)
    offsets, ids = _chains(
        total[kept] // sessions.block_tokens,
        session,
        group,
        shared=sessions.system_prompt_tokens // sessions.block_tokens,
    )
    return Requests(
        arrival_s=begin_s[session],
        prompt_tokens=prompt[kept],
        output_tokens=output[kept],
        block_offsets=offsets,
        block_ids=ids,
        block_tokens=sessions.block_tokens,
        session=session,
        think_s=think_s[kept],
    )


def _chains(blocks: IntArray, session: IntArray, group: IntArray, *, shared: int) -> tuple[IntArray, IntArray]:
    """(n,) whole blocks of each turn, (n,) its session, (s,) each session's system prompt -> (n + 1,), (m,) chains.

    The first `shared` blocks of a chain are those of the session's system prompt, the others the session's own.
    """
    m = int(blocks.sum())
    if m > MOST_BLOCK_IDS:
        raise InputError(
            "sessions.block_tokens",
            expected=f"at most {MOST_BLOCK_IDS:,} block ids over all turns",
            found=f"{m:,}",
            hint="larger blocks, fewer sessions or shorter ones",
        )
    offsets = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
    used, group = np.unique(group, return_inverse=True)
    own = np.zeros(group.size, dtype=np.int64)
    np.maximum.at(own, session, blocks - shared)
    # What is added to a block's place in the chain to number it.
    common = shared * group.reshape(-1)[session]
    private = (shared * used.size + np.cumsum(own) - own)[session] - shared
    ids = np.empty(m, dtype=np.int64)
    low = 0
    while low < blocks.size:
        high = max(low + 1, int(np.searchsorted(offsets, offsets[low] + _CHUNK_IDS, side="right")) - 1)
        counts = blocks[low:high]
        place = np.arange(offsets[low], offsets[high]) - np.repeat(offsets[low:high], counts)
        own_base, common_base = np.repeat(private[low:high], counts), np.repeat(common[low:high], counts)
        ids[offsets[low] : offsets[high]] = place + np.where(place < shared, common_base, own_base)
        low = high
    return offsets, ids


def _check_time(name: str, seconds: float, *, above: float | None = None) -> None:
    least = "above 0 s" if above is not None else "from 0 s"
    bad = isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_THINK_S
    if bad or (above is not None and seconds <= above):
        raise InputError(name, expected=f"a time {least} to {LONGEST_THINK_S / DAY_S:.0f} days", found=f"{seconds:g} s")
