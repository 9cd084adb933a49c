"""The JSON that asks a server for an answer of exact length."""

import json
from dataclasses import dataclass, field
from typing import Final

from trilemma.bench.endpoint import Endpoint, Route
from trilemma.bench.prompts import Writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a number of output tokens is asked for: the keys that hold the number, and those that are simply true.

    `is_exact`: the server goes on where the model would end. `with_usage`: it is asked for its own count of tokens.
    """

    counts: tuple[str, ...]
    flags: tuple[str, ...] = ()
    with_usage: bool = True

    @property
    def is_exact(self) -> bool:
        """Whether an answer has as many tokens as asked for, unless the context ends."""
        return "ignore_eos" in self.flags

    def options(self, output_tokens: int) -> dict[str, object]:
        """The options of one request."""
        options: dict[str, object] = {**dict.fromkeys(self.counts, output_tokens), **dict.fromkeys(self.flags, True)}
        return options | {"stream": True} | ({"stream_options": {"include_usage": True}} if self.with_usage else {})


# From the most to the least exact: the first that a server takes is used. vLLM and SGLang know all keys.
ASKINGS: Final = (
    Asking(counts=("max_tokens", "min_tokens"), flags=("ignore_eos",)),
    Asking(counts=("max_tokens",), flags=("ignore_eos",)),
    Asking(counts=("max_tokens",)),
    Asking(counts=("max_completion_tokens",)),
    Asking(counts=("max_tokens",), with_usage=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a server takes: route, model, how prompts are written and lengths asked for."""

    endpoint: Endpoint
    model: str
    writing: Writing
    asking: Asking
    _tails: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def request(self, prompt: bytes, output_tokens: int) -> bytes:
        """A whole HTTP request; `prompt` is a piece of JSON."""
        tail = self._tails.get(output_tokens)
        if tail is None:
            options = {"model": self.model} | self.asking.options(output_tokens)
            tail = self._tails[output_tokens] = json.dumps(options).encode()[1:]
        if self.endpoint.route is Route.CHAT:
            body = b'{"messages": [{"role": "user", "content": %b}], %b' % (prompt, tail)
        else:
            body = b'{"prompt": %b, %b' % (prompt, tail)
        return self.endpoint.head("POST", self.endpoint.path, len(body)) + body
