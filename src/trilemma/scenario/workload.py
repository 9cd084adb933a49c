"""The load a scenario asks for: a recorded trace or a synthetic one, and the shape of its day."""

from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trilemma.errors import did_you_mean
from trilemma.scenario.fields import Counts, Duration, Multipliers, Rate, Strict, Word, made, problem
from trilemma.units import parse_rate_per_s, parse_time_s
from trilemma.workload.arrivals import Arrivals as ArrivalProcess
from trilemma.workload.lengths import DISTRIBUTIONS
from trilemma.workload.lengths import Lengths as LengthDistribution
from trilemma.workload.profile import DailyProfile
from trilemma.workload.traces import FORMATS


class Window(Strict):
    """A part of the trace, in time from its start."""

    start: Duration = "0 s"
    end: Duration | None = None
    """The trace's end where left out."""

    @model_validator(mode="after")
    def _in_order(self) -> "Window":
        if self.end_s is not None and self.end_s <= self.start_s:
            raise problem("an end after the start", f"{self.start!r} to {self.end!r}", key="end")
        return self

    @property
    def start_s(self) -> float:
        """Seconds from the trace's start."""
        return parse_time_s(self.start, where="workload.window.start")

    @property
    def end_s(self) -> float | None:
        """Seconds from the trace's start; None: to its end."""
        return None if self.end is None else parse_time_s(self.end, where="workload.window.end")


class Profile(Strict):
    """The load of each hour of a day or week, relative to the others."""

    multipliers: Multipliers
    """24 numbers for a day or 168 for a week, the first hour first."""
    trace_is: Literal["peak", "mean"]
    """Whether the trace shows the busiest hour or the mean one."""

    @model_validator(mode="after")
    def _makes_a_period(self) -> "Profile":
        made(lambda: self.value, prefix="profile")
        return self

    @property
    def value(self) -> DailyProfile:
        """The profile as the workload room holds it."""
        return DailyProfile(multipliers=self.multipliers, trace_is=self.trace_is)


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


class Length(Strict):
    """A distribution of tokens per request."""

    distribution: Literal["fixed", "uniform", "lognormal", "empirical"]
    tokens: int | None = None
    """The one length of `fixed`."""
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
    """Of `lognormal`, with cv."""
    cv: float | None = None
    """Standard deviation of `lognormal` over its mean."""
    minimum: int | None = None
    """Where `lognormal` is cut below."""
    maximum: int | None = None
    """Where `lognormal` is cut above."""
    values: Counts | None = None
    """Observed lengths that `empirical` draws from, each as likely."""

    @model_validator(mode="after")
    def _fits_the_distribution(self) -> "Length":
        given = self.model_dump(exclude_none=True, exclude={"distribution"})
        kind = DISTRIBUTIONS[self.distribution]
        takes = {field.name: field.default is MISSING for field in dataclass_fields(kind)}
        if extra := [key for key in given if key not in takes]:
            raise problem(f"only {', '.join(takes)} beside {self.distribution}", extra[0], key=extra[0])
        if missing := [key for key, needed in takes.items() if needed and key not in given]:
            raise problem(f"a value, which {self.distribution} lengths need", "nothing", key=missing[0])
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


class Workload(Strict):
    """Either a recorded trace, or synthetic arrivals with lengths."""

    trace: Word | None = None
    """A shipped trace's name or a file's path."""
    format: Word | None = None
    """The trace's format; `auto`, read from its header, where left out."""
    rate_scale: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """How many times as fast requests arrive."""
    window: Window | None = None
    profile: Profile | None = None
    """The shape of the day around the trace; without it the trace repeats for ever."""
    period: Duration | None = None
    """How often a batch job comes again; its deadline where left out."""
    arrivals: Arrivals | None = None
    lengths: Lengths | None = None

    @property
    def period_s(self) -> float | None:
        """`period` in seconds."""
        return None if self.period is None else parse_time_s(self.period, where="workload.period")

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str | None) -> str | None:
        if name is not None and name not in ("auto", *FORMATS):
            raise problem(f"auto, {', '.join(FORMATS)}", repr(name), hint=did_you_mean(name, FORMATS))
        return name

    @model_validator(mode="after")
    def _one_source(self) -> "Workload":
        if self.trace is None and self.arrivals is None:
            raise problem("a trace, or arrivals and lengths", "neither")
        if self.period is not None and (self.arrivals is None or self.arrivals.process != "batch"):
            raise problem("a period only for batch arrivals", repr(self.period), key="period")
        if self.period_s == 0:
            raise problem("a period above zero", repr(self.period), key="period")
        if self.trace is not None:
            if both := [key for key in ("arrivals", "lengths") if getattr(self, key) is not None]:
                raise problem("either a trace or synthetic requests", f"{both[0]} beside a trace", key=both[0])
            return self
        if self.lengths is None:
            raise problem("lengths beside arrivals", "nothing", key="lengths")
        if extra := [key for key in ("format", "window") if getattr(self, key) is not None]:
            raise problem("synthetic requests alone", f"{extra[0]}, which reads a trace", key=extra[0])
        if self.rate_scale != 1 and self.arrivals is not None and self.arrivals.rate is None:
            raise problem("no rate_scale where nothing arrives at a rate", f"{self.rate_scale:g}", key="rate_scale")
        return self
