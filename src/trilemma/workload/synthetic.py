"""Synthetic loads: an arrival process times length distributions, the same for the same seed."""

from dataclasses import dataclass

from trilemma.errors import InputError
from trilemma.workload.arrivals import Arrivals, ClosedLoop
from trilemma.workload.lengths import LengthPairs, Lengths
from trilemma.workload.requests import Requests
from trilemma.workload.streams import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticLoad:
    """Generated requests; `closed_loop` holds the clients where arrivals depend on answers, else None."""

    requests: Requests
    closed_loop: ClosedLoop | None = None


def generate(
    arrivals: Arrivals, prompt: Lengths | LengthPairs, output: Lengths | None = None, *, seed: int = 0
) -> SyntheticLoad:
    """Requests arriving by `arrivals` with lengths drawn from `prompt` and `output`, or from `prompt` as pairs.

    Arrivals, prompts and outputs have a random stream each, so a change to one leaves the others as they were, and
    asking for more requests leaves the first ones as they were. Raises InputError where no request arrives in the
    given duration.

    >>> from trilemma.workload.lengths import Fixed
    >>> load = generate(Arrivals(process="constant", rate_per_s=2.0, requests=3), Fixed(tokens=8), Fixed(tokens=4))
    >>> load.requests.arrival_s.tolist(), load.requests.output_tokens.tolist()
    ([0.5, 1.0, 1.5], [4, 4, 4])
    """
    arrival_s = arrivals.draw(stream(seed, "workload.arrivals"))
    n = int(arrival_s.size)
    if not n:
        raise InputError("arrivals.duration", expected="time for at least one request", found=f"{arrivals.duration_s}")
    if isinstance(prompt, LengthPairs):
        if output is not None:
            raise ValueError("pairs of lengths leave no room for a second distribution")
        prompt_tokens, output_tokens = prompt.draw(stream(seed, "workload.length_pairs"), n)
    elif output is None:
        raise ValueError("output lengths are missing")
    else:
        prompt_tokens = prompt.draw(stream(seed, "workload.prompt_tokens"), n)
        output_tokens = output.draw(stream(seed, "workload.output_tokens"), n)
    requests = Requests(arrival_s=arrival_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    return SyntheticLoad(requests=requests, closed_loop=arrivals.closed_loop)
