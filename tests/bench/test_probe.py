"""Finding out what a server is: its models, the prompts it takes, how exactly lengths can be asked for."""

import asyncio

import pytest

from tests.bench.server import Server, prompt_tokens_of
from trilemma.bench.endpoint import parse_endpoint
from trilemma.bench.http import Pool
from trilemma.bench.probe import check_length, probe
from trilemma.bench.prompts import Form
from trilemma.errors import InputError


def found(server, *, model=None, form=None, url="", key=None, length=None):
    async def run():
        async with server:
            endpoint = parse_endpoint(server.url + url, key=key)
            pool = Pool(endpoint)
            try:
                what = await probe(endpoint, model=model, form=form, pool=pool)
                if length is not None:
                    await check_length(what, pool, *length)
                return what
            finally:
                pool.close()

    return asyncio.run(run())


def test_the_only_model_is_taken():
    what = found(Server(models=["llama"], card={"max_model_len": 2048}))
    assert what.dialect.model == "llama"
    assert what.max_model_len == 2048
    assert what.dialect.writing.form is Form.TOKEN_IDS
    assert what.dialect.asking.is_exact
    assert what.notes == ()


def test_a_model_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(InputError, match=r"one of the server's models: llama-8b, qwen.*did you mean 'llama-8b'"):
        found(Server(models=["llama-8b", "qwen"]), model="llama-8B")


def test_one_of_several_models_has_to_be_named():
    with pytest.raises(InputError, match="--model: expected one of the server's models: a, b, found none named"):
        found(Server(models=["a", "b"]))
    assert found(Server(models=["a", "b"]), model="b").dialect.model == "b"


@pytest.mark.parametrize("answer", [{"hello": "world"}, [], {"data": [{"name": "x"}]}, "text"])
def test_json_that_lists_no_models_is_no_such_endpoint(answer):
    with pytest.raises(InputError, match="OpenAI-compatible endpoint"):
        found(Server(list_models=lambda say: say.json(answer)))


def test_a_web_page_is_no_such_endpoint():
    async def page(say):
        await say.head(200, {"Content-Type": "text/html", "Content-Length": "13"})
        await say.raw(b"<html></html>")

    with pytest.raises(InputError, match="OpenAI-compatible endpoint"):
        found(Server(list_models=page))


def test_a_server_without_a_list_needs_the_model_named():
    def nothing(say):
        return say.refuse(404, "not found")

    with pytest.raises(InputError, match="OpenAI-compatible endpoint"):
        found(Server(list_models=nothing))
    assert found(Server(list_models=nothing), model="m").dialect.model == "m"


def test_nobody_there():
    server = Server()

    async def run():
        async with server:
            pass
        endpoint = parse_endpoint(server.url)
        await probe(endpoint, model=None, form=None, pool=Pool(endpoint))

    with pytest.raises(InputError, match="a server that answers"):
        asyncio.run(run())


@pytest.mark.parametrize(("key", "expected"), [(None, "asks for no key"), ("wrong", "takes the key")])
def test_a_refused_key(key, expected):
    with pytest.raises(InputError, match=expected):
        found(Server(list_models=lambda say: say.refuse(401, "no")), key=key)


def test_a_redirect_is_not_followed():
    def away(say):
        return say.json({}, 308, Location="https://elsewhere.example/v1/models")

    with pytest.raises(InputError, match=r"redirect to https://elsewhere.example/v1/models, not followed"):
        found(Server(list_models=away))


def refusing(*keys):
    """A server that knows none of these keys."""

    async def behave(server, say):
        if unknown := [key for key in keys if key in say.asked]:
            await say.refuse(400, f"unknown {unknown[0]}")
        else:
            await say.whole()

    return Server(behave)


@pytest.mark.parametrize(
    ("unknown", "counts", "is_exact"),
    [
        ((), ("max_tokens", "min_tokens"), True),
        (("min_tokens",), ("max_tokens",), True),
        (("min_tokens", "ignore_eos"), ("max_tokens",), False),
        (("ignore_eos", "max_tokens"), ("max_completion_tokens",), False),
    ],
)
def test_the_most_exact_way_that_is_taken(unknown, counts, is_exact):
    what = found(refusing(*unknown))
    assert (what.dialect.asking.counts, what.dialect.asking.is_exact) == (counts, is_exact)
    assert any("ignore_eos" in note for note in what.notes) is not is_exact


def test_a_server_that_refuses_everything_is_quoted():
    with pytest.raises(InputError, match="HTTP 400: unknown stream"):
        found(refusing("stream"))


def test_words_where_token_ids_are_refused_and_how_many_tokens_they_make():
    async def only_text(server, say):
        if not isinstance(say.asked["prompt"], str):
            await say.refuse(422, "prompt must be a string")
            return
        await say.head()
        for i in range(4):
            await say.token(finish_reason="length" if i == 3 else None)
        await say.usage(2 * prompt_tokens_of(say.asked) + 7, 4)
        await say.end()

    writing = found(Server(only_text)).dialect.writing
    assert (writing.form, writing.tokens_per_word, writing.extra_tokens) == (Form.TEXT, 2.0, 7.0)
    assert writing.units(107) == 50
    with pytest.raises(InputError, match="prompt must be a string"):
        found(Server(only_text), form=Form.TOKEN_IDS)


def test_small_vocabularies_get_small_numbers():
    async def small(server, say):
        await (say.refuse(400, "out of vocabulary") if max(say.asked["prompt"]) >= 1000 else say.whole())

    writing = found(Server(small)).dialect.writing
    assert writing.last_id <= 1000


def test_no_usage_is_said():
    async def silent(server, say):
        say.asked.pop("stream_options", None)
        await say.whole()

    assert any("no usage" in note for note in found(Server(silent)).notes)


def test_a_context_the_server_tells_is_compared():
    found(Server(card={"max_model_len": 100}), length=(90, 10))
    with pytest.raises(InputError, match=r"context of 100 tokens, found one of 91 \+ 10 tokens"):
        found(Server(card={"max_model_len": 100}), length=(91, 10))


def test_a_context_it_does_not_tell_is_tried():
    async def short(server, say):
        if prompt_tokens_of(say.asked) > 64:
            await say.refuse(400, "exceeds the context")
        else:
            await say.whole()

    found(Server(short), length=(64, 10))
    with pytest.raises(InputError, match="exceeds the context"):
        found(Server(short), length=(65, 10))
