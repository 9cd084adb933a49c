"""Prompts of a wanted length, made up so that blocks with equal ids are equal text, and nothing else is.

Two requests share a prefix on the wire exactly where their block ids say so. What lies behind the blocks is each
request's own. A salt makes the prompts of two runs differ, or the second would find the first one's in the cache.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trilemma.bench.words import WORDS
from trilemma.workload.requests import Requests

UInts = npt.NDArray[np.uint64]
_OWN = 1 << 63  # sets what a request has to itself apart from every block id


class Form(StrEnum):
    """How a prompt is written: as numbers of the vocabulary, exact in length, or as words."""

    TOKEN_IDS = "token-ids"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How prompts are written for a server.

    Token ids are drawn from `first_id` up to and without `last_id`. A text of w words has `tokens_per_word` * w +
    `extra_tokens` tokens (a chat template, a beginning of sequence); of token ids the server adds `extra_tokens`.
    """

    form: Form
    first_id: int = 0
    last_id: int = 0
    tokens_per_word: float = 1.0
    extra_tokens: float = 0.0

    def units(self, tokens: int) -> int:
        """Words or ids that make a prompt of about `tokens` tokens, at least one."""
        wanted = tokens - self.extra_tokens
        return max(1, round(wanted if self.form is Form.TOKEN_IDS else wanted / self.tokens_per_word))

    def boundaries(self, blocks: int, block_tokens: int) -> npt.NDArray[np.int64]:
        """(blocks + 1,) words or ids before each block, and before what follows the last."""
        per_unit = 1.0 if self.form is Form.TOKEN_IDS else self.tokens_per_word
        return (np.arange(blocks + 1) * block_tokens / per_unit).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts of a table of requests as pieces of JSON.

    >>> requests = Requests(arrival_s=np.zeros(2), prompt_tokens=np.array([6, 5]), output_tokens=np.array([1, 1]),
    ...                     block_offsets=np.array([0, 1, 2]), block_ids=np.array([7, 7]), block_tokens=4)
    >>> prompts = Prompts(requests=requests, writing=Writing(form=Form.TEXT), salt=1)
    >>> one, two = (prompts.json(i)[1:-1].decode().split() for i in range(2))
    >>> len(one), len(two), one[:4] == two[:4]
    (6, 5, True)
    """

    requests: Requests
    writing: Writing
    salt: int
    _vocabulary: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        writing = self.writing
        is_ids = writing.form is Form.TOKEN_IDS
        table = tuple(str(number) for number in range(writing.first_id, writing.last_id)) if is_ids else WORDS
        object.__setattr__(self, "_vocabulary", table)

    def json(self, index: int) -> bytes:
        """The prompt of one request: a JSON list of numbers, or a JSON string."""
        places = self.places(index).tolist()
        vocabulary = self._vocabulary
        if self.writing.form is Form.TOKEN_IDS:
            return f"[{','.join([vocabulary[place] for place in places])}]".encode()
        return f'"{" ".join([vocabulary[place] for place in places])}"'.encode()

    def places(self, index: int) -> npt.NDArray[np.int64]:
        """(n,) places in the vocabulary of a prompt's words or ids."""
        requests, writing = self.requests, self.writing
        count = writing.units(int(requests.prompt_tokens[index]))
        keys = np.full(count, _OWN + index, dtype=np.uint64)
        inside = np.arange(count, dtype=np.uint64)
        if requests.block_offsets is not None and requests.block_ids is not None:
            ids = requests.block_ids[requests.block_offsets[index] : requests.block_offsets[index + 1]]
            begins = np.minimum(writing.boundaries(ids.size, requests.block_tokens), count)
            sizes = np.diff(begins)
            keys[: begins[-1]] = np.repeat(ids.astype(np.uint64) & np.uint64(_OWN - 1), sizes)
            inside[: begins[-1]] -= np.repeat(begins[:-1], sizes).astype(np.uint64)
        drawn = _mixed(_mixed(keys ^ _mixed(np.array([self.salt], dtype=np.uint64))) ^ inside)
        return (drawn % np.uint64(len(self._vocabulary))).astype(np.int64)


def _mixed(keys: UInts) -> UInts:
    """(n,) -> (n,) numbers that look random, one of its own for each key (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = keys + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
