"""Finding out what a server is and takes, before anything is measured: model, prompts, lengths."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Final

from trilemma.bench.answer import Answer, Ending
from trilemma.bench.dialect import ASKINGS, Asking, Dialect
from trilemma.bench.endpoint import Endpoint, Route
from trilemma.bench.http import Pool
from trilemma.bench.prompts import Form, Writing
from trilemma.bench.records import Record
from trilemma.bench.sender import Sender
from trilemma.bench.words import WORDS
from trilemma.errors import InputError, did_you_mean

PROBE_S: Final = 60.0  # a server may load its model on the first request
ID_WINDOWS: Final = ((1024, 2048), (384, 512), (32, 96))  # ordinary tokens in large, small and tiny vocabularies
PROBE_TOKENS: Final = 4
SHORT, LONG = 16, 64  # ids or words of the prompts that are counted
STRIDE: Final = 37  # through the words, so that few of them are like many
LISTED: Final = 10
WRONG_REQUEST: Final = (400, 404, 405, 415, 422, 500, 501)  # what servers say to keys and prompts they do not know


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a server takes. `max_model_len` is the context it says it has, None where it says nothing."""

    dialect: Dialect
    models: tuple[str, ...]
    max_model_len: int | None
    notes: tuple[str, ...]


async def probe(endpoint: Endpoint, *, model: str | None, form: Form | None, pool: Pool) -> Found:
    """Asks a server for its models and for a few short answers.

    Raises InputError where nothing answers, where what answers is no OpenAI-compatible endpoint, for a model the
    server does not have (with those it has), a key it refuses, and a `form` of prompts it does not take.
    """
    answer = await _asked(endpoint, pool, endpoint.head("GET", f"{endpoint.base}/models", 0))
    _check_reached(endpoint, answer)
    models, lengths = _models(endpoint, answer, model)
    name = _chosen(models, model)
    notes: list[str] = []
    dialect, said = await _dialect(endpoint, pool, name, form)
    if dialect.writing.form is Form.TEXT:
        dialect = replace(dialect, writing=await _measured_text(dialect, pool, notes))
    elif said.usage is not None:
        extra = said.usage.prompt_tokens - SHORT
        dialect = replace(dialect, writing=replace(dialect.writing, extra_tokens=float(max(0, extra))))
        if extra:
            notes.append(f"the server counts {extra:+d} tokens beside those of a prompt")
    if not dialect.asking.is_exact:
        notes.append("the server does not take ignore_eos: answers may end before they are as long as asked for")
    if said.usage is None:
        notes.append("the server gives no usage: tokens are those asked for in prompts, chunks counted in answers")
    return Found(dialect=dialect, models=models, max_model_len=lengths.get(name), notes=tuple(notes))


async def check_length(found: Found, pool: Pool, prompt_tokens: int, output_tokens: int) -> None:
    """Whether the server would take a request of these lengths: raises InputError with its own words if not.

    The request is begun and broken off, unless the server told its context, which is then compared.
    """
    total, said = prompt_tokens + output_tokens, f"{prompt_tokens:,} + {output_tokens:,} tokens"
    hint = "--max-model-len leaves out longer requests"
    if found.max_model_len is not None:
        if total > found.max_model_len:
            expected = f"requests within the server's context of {found.max_model_len:,} tokens"
            raise InputError("lengths", expected=expected, found=f"one of {said}", hint=hint)
        return
    units = found.dialect.writing.units(prompt_tokens)
    request = found.dialect.request(_prompt(found.dialect.writing, units), output_tokens)
    answer = await _asked(found.dialect.endpoint, pool, request, until_head=True)
    if answer.ending is Ending.REFUSED and answer.status in {400, 413, 422}:
        found_text = f"one of {said}, which it refuses: {answer.why}"
        raise InputError("lengths", expected="requests the server takes", found=found_text, hint=hint)


class _Head(Answer):
    """An answer that is broken off once it begins."""

    __slots__ = ()

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Ends a good answer at its beginning."""
        Answer.head(self, status, headers)
        if status == 200:
            self.fail(Ending.DONE, "")


async def _asked(endpoint: Endpoint, pool: Pool, request: bytes, *, until_head: bool = False) -> Answer:
    """One request and its answer, on a connection of its own where a kept one had gone."""
    dialect = Dialect(endpoint=endpoint, model="", writing=Writing(form=Form.TEXT), asking=ASKINGS[0])
    sender = Sender(dialect=dialect, pool=pool, timeout_s=PROBE_S, answers=_Head if until_head else Answer)
    record = Record(index=0, intended_ns=perf_counter_ns())
    answer = await sender.attempt(request, record)
    return await sender.attempt(request, record, is_fresh=True) if answer.is_stale else answer


def _check_reached(endpoint: Endpoint, answer: Answer) -> None:
    """Raises InputError where there was no answer, a redirect, or a refused key."""
    if answer.status == 0:
        raise InputError(endpoint.origin, expected="a server that answers", found=answer.why)
    if 300 <= answer.status < 400:
        hint = "if that is the server, give its address"
        raise InputError(endpoint.origin, expected="an answer from there", found=answer.why, hint=hint)
    if answer.status in {401, 403}:
        hint = "--api-key-env names the variable that holds the key"
        expected = "a server that takes the key" if endpoint.key else "a server that asks for no key"
        raise InputError(endpoint.origin, expected=expected, found=answer.why, hint=hint)


def _models(endpoint: Endpoint, answer: Answer, model: str | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """The models a server lists, and the contexts it tells; the asked one where it lists none."""
    if answer.status == 404 and model is not None:
        return (model,), {}  # some servers list nothing and answer all the same
    where, expected = f"{endpoint.origin}{endpoint.base}/models", "the list of models of an OpenAI-compatible endpoint"
    if answer.status != 200:
        raise InputError(where, expected=expected, found=answer.why)
    try:
        cards = [card for card in json.loads(answer.text)["data"] if card["id"]]
        lengths = {card["id"]: int(card["max_model_len"]) for card in cards if card.get("max_model_len")}
        return tuple(str(card["id"]) for card in cards), lengths
    except (ValueError, TypeError, LookupError, AttributeError):
        raise InputError(where, expected=expected, found=answer.why or "something else") from None


def _chosen(models: Sequence[str], model: str | None) -> str:
    """The asked model if it is there, or the only one; InputError with the list otherwise."""
    listed = ", ".join(models[:LISTED]) + (f" and {len(models) - LISTED} more" if len(models) > LISTED else "")
    if model is None:
        if len(models) == 1:
            return models[0]
        raise InputError("--model", expected=f"one of the server's models: {listed or 'none'}", found="none named")
    if model not in models:
        hint = did_you_mean(model, models)
        raise InputError("--model", expected=f"one of the server's models: {listed}", found=repr(model), hint=hint)
    return model


async def _dialect(endpoint: Endpoint, pool: Pool, model: str, form: Form | None) -> tuple[Dialect, Answer]:
    """The most exact way to ask that the server takes, and its answer to it."""
    if form is Form.TOKEN_IDS and endpoint.route is Route.CHAT:
        raise InputError("--prompt-form", expected="text for chats", found=str(form))
    ids = [Writing(form=Form.TOKEN_IDS, first_id=low, last_id=high) for low, high in ID_WINDOWS]
    writings = [] if form is Form.TEXT or endpoint.route is Route.CHAT else ids
    writings += [] if form is Form.TOKEN_IDS else [Writing(form=Form.TEXT)]
    first_refusal: Answer | None = None
    for asking in ASKINGS:
        for writing in writings:
            dialect = Dialect(endpoint=endpoint, model=model, writing=writing, asking=asking)
            answer = await _short_answer(dialect, pool, SHORT)
            if answer.ending is Ending.DONE:
                return dialect, answer
            _check_reached(endpoint, answer)
            first_refusal = first_refusal or answer
            if answer.status not in WRONG_REQUEST and answer.ending is not Ending.FAILED:
                break
    said = "nothing" if first_refusal is None else first_refusal.why
    expected = f"a streamed answer from {endpoint.path}"
    raise InputError(endpoint.origin, expected=expected, found=said)


async def _short_answer(dialect: Dialect, pool: Pool, units: int) -> Answer:
    request = dialect.request(_prompt(dialect.writing, units), PROBE_TOKENS)
    return await _asked(dialect.endpoint, pool, request)


def _prompt(writing: Writing, units: int) -> bytes:
    """A prompt of so many ids or words, each in turn."""
    if writing.form is Form.TOKEN_IDS:
        span = writing.last_id - writing.first_id
        return json.dumps([writing.first_id + i % span for i in range(units)]).encode()
    return json.dumps(" ".join(WORDS[i * STRIDE % len(WORDS)] for i in range(units))).encode()


async def _measured_text(dialect: Dialect, pool: Pool, notes: list[str]) -> Writing:
    """How many tokens words make, from the server's count of a short and a long text."""
    short, long = [(await _short_answer(dialect, pool, words)).usage for words in (SHORT, LONG)]
    if short is None:
        notes.append("the server counts no prompt tokens: a word is taken for one")
        return dialect.writing
    grown = 0 if long is None else long.prompt_tokens - short.prompt_tokens
    # A context too small for the long text leaves the short one.
    per_word = grown / (LONG - SHORT) if grown > 0 else short.prompt_tokens / SHORT
    extra = short.prompt_tokens - per_word * SHORT
    notes.append(f"prompts are words of {per_word:.3g} tokens each and {extra:.3g} around them: near the wanted length")
    return replace(dialect.writing, tokens_per_word=per_word, extra_tokens=extra)


def exactness(asking: Asking) -> str:
    """How output lengths are asked for, in words."""
    return ", ".join((*asking.counts, *asking.flags))
