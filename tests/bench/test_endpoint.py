import pytest

from trilemma.bench.endpoint import Route, parse_endpoint
from trilemma.errors import InputError


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://h:8000", "http://h:8000", "/v1/completions"),
        ("h:8000/", "http://h:8000", "/v1/completions"),
        ("https://h", "https://h", "/v1/completions"),
        ("https://h/v1/", "https://h", "/v1/completions"),
        ("https://h/openai/v1/completions", "https://h", "/openai/v1/completions"),
        ("https://h/v1/chat/completions", "https://h", "/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000", "/v1/completions"),
        ("http://h:80", "http://h", "/v1/completions"),
    ],
)
def test_addresses(url, origin, path):
    endpoint = parse_endpoint(url)
    assert (endpoint.origin, endpoint.path) == (origin, path)


def test_the_route_can_be_asked_for_but_not_against_the_address():
    assert parse_endpoint("http://h", route=Route.CHAT).path == "/v1/chat/completions"
    with pytest.raises(InputError, match="completions, as the address says"):
        parse_endpoint("http://h/v1/completions", route=Route.CHAT)


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h", "http://", "http://h:99999", "http://h/v1?x=1", "http://h/#x", "http://h/ v1", "http://h\r\nX: y"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="URL"):
        parse_endpoint(url)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(InputError) as refused:
        parse_endpoint("http://me:secret@h")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9", "https://h"]
)
def test_a_key_may_go_to_this_machine_and_over_tls(url):
    endpoint = parse_endpoint(url, key="k")
    assert b"Authorization: Bearer k\r\n" in endpoint.head("GET", "/", 0)


@pytest.mark.parametrize(
    "url", ["http://h", "http://10.0.0.1", "http://localhost.example.com", "http://127.0.0.1.example.com"]
)
def test_a_key_does_not_cross_a_network_unencrypted(url):
    with pytest.raises(InputError, match="--insecure-credentials") as refused:
        parse_endpoint(url, key="very-secret")
    assert "very-secret" not in str(refused.value)
    assert parse_endpoint(url, key="very-secret", allow_plain_key=True).key == "very-secret"


@pytest.mark.parametrize("key", ["a\r\nX-Injected: 1", "", "   ", "käse"])
def test_a_key_that_would_break_the_request_is_refused(key):
    with pytest.raises(InputError, match="--api-key-env") as refused:
        parse_endpoint("https://h", key=key)
    assert "Injected" not in str(refused.value)


def test_without_a_key_no_authorization_is_sent():
    assert b"authorization" not in parse_endpoint("http://h").head("POST", "/", 3).lower()
