"""Synthetic requests: when they come, how long they are, and how a session's turns follow each other."""

from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from typing import Any, Literal

from pydantic import Field, model_validator

from trilemma.scenario.fields import Count, Counts, Duration, Rate, Strict, made, problem
from trilemma.units import parse_rate_per_s, parse_time_s
from trilemma.workload.arrivals import Arrivals as ArrivalProcess
from trilemma.workload.lengths import DISTRIBUTIONS
from trilemma.workload.lengths import Lengths as LengthDistribution
from trilemma.workload.sessions import THINK_TIMES
from trilemma.workload.sessions import Sessions as SessionLoad
from trilemma.workload.sessions import ThinkTime as ThinkTimeDistribution


class Arrivals(Strict):
    """When synthetic requests come."""

    process: Literal["poisson", "gamma", "constant", "batch", "closed_loop"]
    """batch: all at once; closed_loop: clients that each send their next request when the last is answered."""
    rate: Rate | None = None
    """Mean arrival rate."""
    burstiness: float | None = None
    """Shape of the gamma gaps, as in `vllm bench serve`: 1 is Poisson, below 1 burstier, above 1 smoother."""
    requests: int | None = None
    """How many requests."""
    duration: Duration | None = None
    """How long they come; with `requests` too, whichever ends first."""
    concurrency: int | None = None
    """Clients of the closed loop."""

    @model_validator(mode="after")
    def _fits_the_process(self) -> "Arrivals":
        made(lambda: self.value, prefix="arrivals")
        return self

    @property
    def value(self) -> ArrivalProcess:
        """The arrivals as the workload room holds them."""
        return ArrivalProcess(
            process=self.process,
            rate_per_s=None if self.rate is None else parse_rate_per_s(self.rate, where="arrivals.rate"),
            burstiness=self.burstiness,
            requests=self.requests,
            duration_s=None if self.duration is None else parse_time_s(self.duration, where="arrivals.duration"),
            concurrency=self.concurrency,
        )


def _fits(distribution: str, kind: type[Any], given: Mapping[str, object]) -> None:
    """Whether the keys `given` are those that a distribution takes; `kind` is the dataclass it becomes."""
    takes = {field.name.removesuffix("_s"): field.default is MISSING for field in dataclass_fields(kind)}
    if extra := [key for key in given if key not in takes]:
        raise problem(f"only {', '.join(takes)} beside {distribution}", extra[0], key=extra[0])
    if missing := [key for key, needed in takes.items() if needed and key not in given]:
        raise problem(f"a value, which {distribution} needs", "nothing", key=missing[0])


class Length(Strict):
    """A distribution of tokens per request, or of turns per session."""

    distribution: Literal["fixed", "uniform", "lognormal", "geometric", "empirical"]
    tokens: int | None = None
    """The one value of `fixed`."""
    low: int | None = None
    """Shortest of `uniform`, included."""
    high: int | None = None
    """Longest of `uniform`, included."""
    median: float | None = None
    """Of `lognormal`, with p95 or sigma."""
    p95: float | None = None
    sigma: float | None = None
    """Standard deviation of the logarithm of `lognormal`."""
    mean: float | None = None
    """Of `lognormal`, with cv; of `geometric`."""
    cv: float | None = None
    """Standard deviation of `lognormal` over its mean."""
    minimum: int | None = None
    """Where `lognormal` is cut below."""
    maximum: int | None = None
    """Where `lognormal` and `geometric` are cut above."""
    values: Counts | None = None
    """Observed lengths that `empirical` draws from, each as likely."""

    @model_validator(mode="after")
    def _fits_the_distribution(self) -> "Length":
        given = self.model_dump(exclude_none=True, exclude={"distribution"})
        _fits(self.distribution, DISTRIBUTIONS[self.distribution], given)
        made(lambda: self.value, prefix=self.distribution if self.distribution == "lognormal" else "")
        return self

    @property
    def value(self) -> LengthDistribution:
        """The distribution as the workload room holds it."""
        given = self.model_dump(exclude_none=True, exclude={"distribution"})
        return DISTRIBUTIONS[self.distribution](**given)


class Lengths(Strict):
    """Tokens of synthetic requests."""

    prompt: Length
    output: Length


class ThinkTime(Strict):
    """A distribution of the time from an answer to the session's next request."""

    distribution: Literal["fixed", "exponential", "lognormal"]
    time: Duration | None = None
    """The one time of `fixed`."""
    mean: Duration | None = None
    """Of `exponential`."""
    median: Duration | None = None
    """Of `lognormal`, with p95 or sigma."""
    p95: Duration | None = None
    sigma: float | None = None
    """Standard deviation of the logarithm of `lognormal`."""
    maximum: Duration | None = None
    """Where `exponential` and `lognormal` are cut; a day where left out."""

    @model_validator(mode="after")
    def _fits_the_distribution(self) -> "ThinkTime":
        given = self.model_dump(exclude_none=True, exclude={"distribution"})
        _fits(self.distribution, THINK_TIMES[self.distribution], given)
        made(lambda: self.value, prefix="")
        return self

    @property
    def value(self) -> ThinkTimeDistribution:
        """The distribution as the workload room holds it."""
        given = self.model_dump(exclude_none=True, exclude={"distribution"})
        numbers = {
            key if key == "sigma" else f"{key}_s": text if key == "sigma" else parse_time_s(text, where=key)
            for key, text in given.items()
        }
        return THINK_TIMES[self.distribution](**numbers)


class Sessions(Strict):
    """Conversations: each turn sends everything said so far again, some time after the last answer."""

    turns: Length
    """Requests per session."""
    user_tokens: Length
    """New tokens that a turn asks."""
    output_tokens: Length
    """Tokens it is answered with."""
    think_time: ThinkTime
    """From an answer to the session's next request."""
    system_prompt_tokens: int = Field(default=0, ge=0)
    """Tokens every conversation begins with."""
    shared_prefixes: int = Field(default=1, ge=1)
    """Different system prompts; each session has one of them."""
    max_model_len: Count | None = None
    """Most tokens of a prompt and its answer: a session ends before them; the model's context where left out."""
    block_tokens: int = Field(default=16, ge=1)
    """Tokens per block that prefixes are named by."""

    @model_validator(mode="after")
    def _makes_sessions(self) -> "Sessions":
        made(lambda: self.value, prefix="sessions")
        return self

    @property
    def value(self) -> SessionLoad:
        """The sessions as the workload room holds them, `max_model_len` unbounded where it is left out."""
        bound = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        return SessionLoad(
            turns=self.turns.value,
            user_tokens=self.user_tokens.value,
            output_tokens=self.output_tokens.value,
            think_time=self.think_time.value,
            system_prompt_tokens=self.system_prompt_tokens,
            shared_prefixes=self.shared_prefixes,
            block_tokens=self.block_tokens,
            **bound,
        )
