"""Where requests go, read from an address: host, port, route, and what may be sent there."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from trilemma.errors import InputError

EXPECTED = "an address such as http://127.0.0.1:8000 or https://host/v1"


class Route(StrEnum):
    """The two ways an OpenAI-compatible endpoint writes text."""

    COMPLETIONS = "completions"
    CHAT = "chat"


PATHS = {Route.COMPLETIONS: "/completions", Route.CHAT: "/chat/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server. `base` is the path everything starts with ("/v1"); `key` the API key, sent as a bearer token."""

    host: str
    port: int
    is_encrypted: bool
    base: str
    route: Route
    key: str | None = None

    @property
    def authority(self) -> str:
        """Host and port as an HTTP header names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_encrypted else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.is_encrypted else 'http'}://{self.authority}"

    @property
    def path(self) -> str:
        """Where prompts are posted."""
        return self.base + PATHS[self.route]

    @property
    def is_loopback(self) -> bool:
        """Whether nothing sent there leaves this machine."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def head(self, method: str, path: str, length: int) -> bytes:
        """The head of a request with a JSON body of `length` bytes."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.authority}",
            "Accept: text/event-stream, application/json",
            "User-Agent: trilemma-bench",
        ]
        if self.key is not None:
            lines.append(f"Authorization: Bearer {self.key}")
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse_endpoint(
    url: str, *, route: Route | None = None, key: str | None = None, allow_plain_key: bool = False
) -> Endpoint:
    """The endpoint behind `url`, whose path may stop anywhere up to the route ("", "/v1", "/v1/completions").

    `route` None takes what the path says, completions where it says nothing. Raises InputError for what is no such
    address, for names or passwords inside it, and for a `key` that would cross a network unencrypted, unless
    `allow_plain_key`.

    >>> parse_endpoint("http://127.0.0.1:8000").path
    '/v1/completions'
    >>> parse_endpoint("https://host/api/v1/chat/completions/").path
    '/api/v1/chat/completions'
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise InputError("URL", expected=EXPECTED, found=f"{url!r}: {error}") from None
    if parts.username is not None or parts.password is not None:
        hint = "name the variable that holds the key with --api-key-env"
        raise InputError("URL", expected="an address without a name or password", found="one inside it", hint=hint)
    bad = any(character.isspace() or not character.isprintable() for character in url) or not url.isascii()
    if parts.scheme not in {"http", "https"} or not parts.hostname or bad or parts.query or parts.fragment:
        raise InputError("URL", expected=EXPECTED, found=repr(url))
    path, said = parts.path.rstrip("/"), None
    for name, ending in sorted(PATHS.items(), key=lambda item: -len(item[1])):  # "/chat/completions" first
        if path.endswith(ending):
            path, said = path.removesuffix(ending), name
            break
    if route is not None and said is not None and route is not said:
        raise InputError("--api", expected=f"{said}, as the address says", found=repr(str(route)))
    is_encrypted = parts.scheme == "https"
    endpoint = Endpoint(
        host=parts.hostname,
        port=port or (443 if is_encrypted else 80),
        is_encrypted=is_encrypted,
        base=path or "/v1",
        route=route or said or Route.COMPLETIONS,
        key=key,
    )
    _check_key(endpoint, allow_plain_key=allow_plain_key)
    return endpoint


def _check_key(endpoint: Endpoint, *, allow_plain_key: bool) -> None:
    """Whether the key may be sent there, and can be sent at all."""
    if endpoint.key is None:
        return
    if not endpoint.key.isascii() or not endpoint.key.isprintable() or not endpoint.key.strip():
        raise InputError("--api-key-env", expected="a key of printable characters", found="another value")
    if not endpoint.is_encrypted and not endpoint.is_loopback and not allow_plain_key:
        raise InputError(
            "--api-key-env",
            expected=f"https for {endpoint.host}: over plain http everyone on the way reads the key",
            found="http",
            hint="--insecure-credentials sends it all the same",
        )
