"""One request and its response on their way through the guard."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from rag_index.errors import RequestTooLarge
from rag_index.service.requests import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any

    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
NO_STORE = (b"cache-control", b"no-store")
"""Answers are for one caller, and change with the index."""


class Exchange:
    """One request and its response on their way through the guard."""

    def __init__(self, scope: Scope, send: Send, max_body: int) -> None:
        self.scope, self._send, self._max_body = scope, send, max_body
        self.headers = _headers(scope)
        self.caller = Caller()
        self.status = 0
        self.replayed = False

    @property
    def method(self) -> str:
        """Return the method."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """Return the path for the log, percent-encoded and without what is asked."""
        return (self.scope.get("raw_path") or b"").decode("latin-1").partition("?")[0]

    @property
    def address(self) -> str:
        """Return the address of the client."""
        client = self.scope.get("client")
        return str(client[0]) if client else "unknown"

    @property
    def sender(self) -> str:
        """Return who counts as one caller for the rate: an address, or one connection of a program on this machine.

        It is the address that a proxy names, if the connection comes from a private network. Nothing else depends on
        that, since anybody may write what they like there.
        """
        try:
            address = ip_address(self.address)
        except ValueError:
            return self.address
        named = self.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if named and address.is_private:
            return named
        return f"{address} {self.scope['client'][1]}" if address.is_loopback else str(address)

    @property
    def host(self) -> str:
        """Return the name that the client used, without port."""
        name = self.headers.get("host", "").lower()
        return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]

    def is_foreign(self, allowed: list[str]) -> bool:
        """Return whether a browser sends this for a page of an origin that may not ask.

        An image or a link has no Origin, so that Sec-Fetch-Site alone tells. Another port or subdomain (`same-site`) is
        somebody else's page too. A link to the page itself is for whoever clicks it.
        """
        origin = self.headers.get("origin", "").lower()
        if origin:
            return origin.partition("://")[2] != self.headers.get("host", "").lower() and origin not in allowed
        if self.scope["path"] == "/" and self.headers.get("sec-fetch-mode") == "navigate":
            return False
        return self.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")

    def check_length(self) -> None:
        """Raise RequestTooLarge if the body is larger than allowed, as the client itself says."""
        declared = self.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > self._max_body:
            raise self._too_large()

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"the body is larger than the {self._max_body:,} bytes of [serve] max_body_bytes")

    async def read_body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if the client hangs up. Raises RequestTooLarge."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": _with_security(message)}
        await self._send(message)

    async def refuse(self, response: Response, receive: Receive) -> None:
        """Send a problem, unless a response has begun; then nothing more can be said."""
        if not self.status:
            await response(self.scope, receive, self.send)


def _headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _with_security(message: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with those that are missing."""
    given = list(message.get("headers", []))
    names = {name.lower() for name, _ in given}
    return given + [one for one in (*SECURITY_HEADERS, NO_STORE) if one[0] not in names]
