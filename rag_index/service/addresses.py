"""The addresses on which the service listens, and the names under which it may be asked."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from rag_index.errors import CannotListen, SettingsError

if TYPE_CHECKING:
    from rag_index.service.tokens import TokenRegister
    from rag_index.settings import ServeSettings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
BACKLOG = 2048


def is_loopback(host: str) -> bool:
    """Return whether this address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_tokens(serve: ServeSettings, tokens: TokenRegister) -> None:
    """Raise SettingsError if others than the users of this machine could ask without a token."""
    if tokens.any:
        return
    remedy = "make a token with `rag-index serve --new-token NAME` and put its line into [serve] tokens"
    if not is_loopback(serve.host):
        raise SettingsError(f"other machines can reach {serve.host}, so the service needs tokens: {remedy}")
    if serve.hosts:
        raise SettingsError(
            f"[serve] hosts says that others reach the service as {serve.hosts[0]}, so it needs tokens: {remedy}"
        )


def allowed_hosts(serve: ServeSettings, tokens: TokenRegister) -> frozenset[str] | None:
    """Return the names that a request's Host may have, None for any.

    Without tokens this keeps out web pages that have their own name point at this machine (DNS rebinding). With
    tokens such a page has none, and any name is good unless the settings list them.
    """
    if serve.hosts:
        return frozenset(serve.hosts) | LOOPBACK_NAMES
    if tokens.required:
        return None
    name = serve.host.lower()
    return LOOPBACK_NAMES | {f"[{name}]" if ":" in name and not name.startswith("[") else name}


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises CannotListen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(BACKLOG)
        except BaseException:
            found.close()
            raise
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise CannotListen(
            f"cannot listen on port {port} of {host}: {reason}; choose another with --port or --host"
        ) from exc
    return found


def url_of(listening: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
