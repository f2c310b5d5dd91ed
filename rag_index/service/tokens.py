"""Who may ask: tokens that are known by their hash alone, each with a name and groups, and names of the service.

A token is 256 random bits, so one round of SHA-256 is enough: nobody finds it by trying, however fast hashing is.
A line is `NAME sha256:HASH`, followed by the token's groups; names and groups are percent-encoded.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from rag_index.errors import SettingsError
from rag_index.service.models import Caller
from rag_index.service.sign_on import SignOn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rag_index.settings import ServeSettings

PREFIX = "rag_"
"""The beginning of every token, by which scanners for secrets can find one that went astray."""

LINE = re.compile(r"(?P<name>[^\s#]\S*)\s+sha256:(?P<hash>[0-9a-fA-F]{64})(?P<groups>(\s+\S+)*)")
CHECK_SECONDS = 1.0
"""How often the file is looked at for changes."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class _Token:
    """A known token: whom it stands for, and its hash."""

    caller: Caller
    digest: bytes


class TokenRegister:
    """The tokens of the settings and of the file that they name; `sign_on` knows callers of whom others made sure."""

    def __init__(self, serve: ServeSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read all tokens. Raises SettingsError if the file cannot be read or a line is not valid."""
        self._clock = clock
        self._given = _parse(serve.tokens, "[serve] tokens")
        self._path = serve.tokens_file
        self._stamp = file_stamp(self._path) if self._path else None
        self._checked_at = clock()
        self._tokens = [*self._given, *self._read()]
        self.sign_on = SignOn(serve, clock=clock)
        self._required = bool(self._tokens) or self._path is not None or self.sign_on.any

    @property
    def required(self) -> bool:
        """Whether callers need a token. A file that has become empty does not open the service to everybody."""
        return self._required

    @property
    def any(self) -> bool:
        """Whether there is a token at all, or another way to be known."""
        return bool(self._tokens) or self.sign_on.any

    def caller(self, token: str) -> Caller | None:
        """Return whom a token stands for, None if it is not known. The time taken does not tell how close it was."""
        self._refresh()
        digest = _digest(token)
        found = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                found = known.caller
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed. If it cannot be read or is not valid, its tokens are unknown."""
        if self._path is None or self._clock() - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = self._clock()
        stamp = file_stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._tokens = list(self._given)
        self._tokens += self._read()

    def _read(self) -> list[_Token]:
        if self._path is None:
            return []
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise SettingsError(f"[serve] tokens_file {self._path} cannot be read: {reason}") from exc
        return _parse(lines, str(self._path))


def new_token() -> str:
    """Return a token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def token_line(name: str, token: str, groups: Iterable[str]) -> str:
    """Return the line by which a token is known."""
    return " ".join([quote(name, safe=""), f"sha256:{_digest(token).hex()}", *(quote(one, safe="") for one in groups)])


def _parse(lines: Iterable[str], where: str) -> list[_Token]:
    """Return the tokens of these lines; empty lines and comments are left out.

    A message does not repeat a line: it may hold a token in clear text.
    """
    tokens = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = LINE.fullmatch(text)
        if found is None:
            raise SettingsError(
                f"{where}: line {number} is not NAME sha256:HASH GROUP…; `rag-index serve --new-token NAME` prints one"
            )
        groups = frozenset(unquote(group) for group in found["groups"].split())
        tokens.append(_Token(Caller(unquote(found["name"]), groups), bytes.fromhex(found["hash"])))
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when the file changes; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


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
    if tokens.required and not serve.proxy:  # what a page may not have is a token; a header it can write
        return None
    name = serve.host.lower()
    return LOOPBACK_NAMES | {f"[{name}]" if ":" in name and not name.startswith("[") else name}
