"""Who may ask the service: callers with its tokens, with JWTs of an issuer, or behind a proxy; and
its host names.

A token is 256 random bits, so one round of SHA-256 is enough: it cannot be found by trying, however
fast hashing is. Its line has that hash alone: `NAME sha256:HASH`, followed by `@ROLE`, if it has a
role in the database, and by its groups; all names are percent-encoded. In their place, * stands for
the documents of all groups. Everything fails closed: what is missing, of another type or not
understood is no caller, or no group.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import httpx

from rag_index.core.connections import tls_context, why_failed
from rag_index.core.files import file_stamp, read_written
from rag_index.errors import SettingsError, TransientError
from rag_index.search.access import ALL_GROUPS, AllGroups, Caller, claim_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jwt import PyJWK

    from rag_index.core.settings import ServeSettings

logger = logging.getLogger(__name__)
Token = tuple[bytes, Caller]
"""The hash of a token, and its caller."""

TOKENS_BEGIN = "rag_"
"""The beginning of every token, by which scanners for secrets can find one that went astray."""

LINE = re.compile(
    r"(?P<name>[^\s#]\S*)\s+sha256:(?P<hash>[0-9a-fA-F]{64})(@(?P<role>\S+))?(?P<groups>(\s+\S+)*)"
)
EVERY_GROUP = "*"
FILE_CHECK_SECONDS = 1.0
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""Signatures with a public key. With the others, a reader of the keys could sign."""
LEEWAY_SECONDS = 30.0
"""How far the clocks of issuer and service may differ."""
FRESH_KEYS_SECONDS = 300.0
KEYS_PAUSE_SECONDS = 30.0
"""The least time between two readings; one more is allowed in between, for a token that no known
key verifies."""
MAX_OLD_SECONDS = 3600.0
"""How long keys are good that cannot be read again, because the issuer does not answer."""
TIMEOUT_SECONDS, MAX_KEYS_BYTES = 5.0, 1_000_000
UNPACKED = {"Accept-Encoding": "identity"}
JWT = "jwt:"
"""The beginning of the name of a caller with a JWT, which no token of the service has."""
MAX_JWT_CHARS = 16_000


class IssuerKeys:
    """The public keys of an issuer (JWKS), which is asked when one is needed. For one event
    loop."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._keys: list[PyJWK] = []
        self._read_at = self._tried_at = -float("inf")
        self._one_more = False
        self._reading: asyncio.Task[None] | None = None

    async def verify(self, token: str, **expected: Any) -> dict[str, Any] | None:
        """Return the claims of a JWT that one of the keys verifies; None if none does.

        Keys are read beside the requests: one waits for that only if no key verifies its token, or
        keys are old. Raises TransientError if the keys cannot be read, or have been too old for too
        long, and PyJWTError for a token that is malformed, or whose claims are not those that are
        `expected`, as `jwt.decode` has them.
        """
        found, now = self._claims(token, expected), self._clock()
        due, age = now - self._tried_at > KEYS_PAUSE_SECONDS, now - self._read_at
        if (due and (found is None or age > FRESH_KEYS_SECONDS)) or (
            found is None and self._one_more
        ):
            self._tried_at, self._one_more = now, due
            self._reading = asyncio.create_task(self._read())
        if self._reading and (found is None or age > 2 * FRESH_KEYS_SECONDS):
            await asyncio.shield(self._reading)
            found = self._claims(token, expected)
        if self._clock() - self._read_at > MAX_OLD_SECONDS:
            raise TransientError(f"the keys of [serve] jwt_keys {self._url} cannot be read")
        return found

    def _claims(self, token: str, expected: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the claims of a token as the first key says that verifies it: those of its id, or
        without an id."""
        import jwt

        header = jwt.get_unverified_header(token)
        named, algorithm = header.get("kid"), header.get("alg")
        for key in self._keys:
            if key.algorithm_name == algorithm and (named is None or key.key_id in (named, None)):
                with suppress(jwt.InvalidSignatureError):
                    return jwt.decode(token, key, algorithms=ALGORITHMS, **expected)
        return None

    async def _read(self) -> None:
        """Read the keys. If that fails, the log says why, and those that are known stay."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                self._take(await self._ask())
        except Exception as exc:  # noqa: BLE001 - whatever an issuer answers, others are known by their keys
            late = f"no whole answer within {TIMEOUT_SECONDS:g} s"
            logger.error(
                "[serve] jwt_keys %s cannot be read: %s",
                self._url,
                why_failed(exc, self._url) or str(exc) or late,
            )

    async def _ask(self) -> bytes:
        """Return the whole answer of the issuer, as it is sent: a small one could be unpacked to a
        large one."""
        answer = b""
        async with (
            httpx.AsyncClient(
                verify=tls_context(), timeout=TIMEOUT_SECONDS, headers=UNPACKED
            ) as client,
            client.stream("GET", self._url) as response,
        ):
            async for part in response.raise_for_status().aiter_raw():
                answer += part
                if len(answer) > MAX_KEYS_BYTES:
                    raise SettingsError(f"the answer is larger than {MAX_KEYS_BYTES:,} bytes")
        return answer

    def _take(self, text: bytes) -> None:
        """Replace the keys by those of a text, which may be none. Raises SettingsError if it is no
        list of keys."""
        try:
            given = list(json.loads(text)["keys"])
        except (ValueError, TypeError, KeyError) as exc:
            raise SettingsError(f"it has no keys (JWKS) to read: {exc!r}") from exc
        listed = [one for one in given if isinstance(one, dict)]
        if given and not listed:
            raise SettingsError("it has no keys (JWKS) to read: nothing in the list is a key")
        self._keys, self._read_at = [key for one in listed for key in _usable(one)], self._clock()


def _usable(listed: Mapping[str, Any]) -> list[PyJWK]:
    """Return a listed key for each algorithm whose signatures it may verify: its own, or all that
    its kind can.

    A key that signs, encrypts, is too short, or of a kind that is not known here, verifies nothing
    here.
    """
    from jwt import PyJWK

    uses = listed.get("key_ops")
    verifies = uses is None or (isinstance(uses, list) and "verify" in uses)
    if listed.get("use") not in (None, "sig") or "d" in listed or not verifies:
        return []
    keys = []
    for algorithm in ALGORITHMS:
        with suppress(Exception):  # whatever is wrong with one, the others are good
            key = PyJWK(dict(listed), algorithm)
            known = key.Algorithm.prepare_key(
                key.key
            )  # an elliptic curve that is not of this algorithm is refused
            if (
                listed.get("alg") in (None, algorithm)
                and key.Algorithm.check_key_length(known) is None
            ):
                keys.append(key)
    return keys


class SignOn:
    """Callers that an issuer of JWTs or a proxy has authenticated."""

    def __init__(
        self,
        serve: ServeSettings,
        roles: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._serve, self._role = serve, roles[0] if roles else ""
        self._networks = [ip_network(one) for one in serve.proxy]
        self._keys = IssuerKeys(serve.jwt_keys, clock=clock) if serve.jwt_keys else None
        self.any = bool(self._keys or self._networks)
        """Whether anybody can ask in one of these ways."""

    def proxied(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """Return the caller that a proxy at this address names by its header; None if this is no
        such request.

        A request with two such headers does not count: one of them may be the caller's own.
        """
        name = (self._serve.proxy_groups or "").lower().encode("latin-1")
        given = [value for header, value in headers if header.lower() == name]
        if len(given) != 1:
            return None
        try:
            found, groups = ip_address(address), given[0].decode().split(",")
        except ValueError:
            return None
        found = getattr(found, "ipv4_mapped", None) or found
        if not any(found in network for network in self._networks):
            return None
        return Caller(groups=frozenset(filter(None, map(str.strip, groups))))

    async def verify(self, token: str) -> Caller | None:
        """Return the caller of a JWT; None if it is not valid. Raises TransientError if there are
        no keys."""
        if self._keys is None or len(token) > MAX_JWT_CHARS or token.count(".") != 2:
            return None
        try:
            claims = await self._keys.verify(
                token,
                audience=self._serve.jwt_audience,
                issuer=self._serve.jwt_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud", *(["iss"] if self._serve.jwt_issuer else [])]},
            )
        except TransientError:
            raise
        except Exception as exc:  # noqa: BLE001 - a token that cannot be read is not valid
            logger.info("a JWT was refused: %s", type(exc).__name__)
            return None
        if claims is None:
            logger.info("a JWT was refused: no key of [serve] jwt_keys verifies it")
            return None
        name = JWT + quote(str(claims.get("sub", "")), safe="@ :|")
        role = claim_of(claims, self._serve.jwt_role) if self._serve.jwt_role else self._role
        role = role if isinstance(role, str) else ""
        return Caller(name, _groups(claims, self._serve.jwt_groups), role, claims if role else {})


def _groups(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    found = claim_of(claims, name)
    values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(value for value in values if isinstance(value, str) and value)


class TokenRegister:
    """The tokens of the settings and of the file that they name; `SignOn` knows callers of whom
    others made sure."""

    def __init__(
        self,
        serve: ServeSettings,
        roles: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read all tokens. `roles` are `caller_roles`. Raises SettingsError if the file or a line
        is not valid."""
        self._clock = clock
        self._given = _parse(serve.tokens, "[serve] tokens")
        self._path = serve.tokens_file
        self._stamp = file_stamp(self._path) if self._path else None
        self._checked_at = clock()
        self._tokens = [*self._given, *self._read()]
        self.sign_on = SignOn(serve, roles, clock=clock)
        self.any = bool(self._tokens) or self.sign_on.any
        """Whether there is a token at all, or another way to be known."""
        self.required = self.any or self._path is not None
        """Whether callers need a token. A file that has become empty does not open the service to
        everybody."""

    def caller(self, token: str) -> Caller | None:
        """Return the caller of a token, None if it is not known. The time taken does not tell how
        close it was."""
        if self._path is not None and self._clock() - self._checked_at >= FILE_CHECK_SECONDS:
            self._checked_at = self._clock()
            if (stamp := file_stamp(self._path)) != self._stamp:
                self._stamp = stamp
                self._tokens = list(
                    self._given
                )  # those of the file are unknown, if it cannot be read or is not valid
                self._tokens += self._read()
        digest = _digest(token)
        found = [caller for known, caller in self._tokens if hmac.compare_digest(known, digest)]
        return found[-1] if found else None

    def _read(self) -> list[Token]:
        if self._path is None:
            return []
        return _parse(read_written(self._path, "[serve] tokens_file").split("\n"), str(self._path))


def new_token() -> str:
    """Return a token with 256 random bits."""
    return TOKENS_BEGIN + secrets.token_urlsafe(32)


def token_line(name: str, token: str, groups: Iterable[str] | AllGroups, role: str = "") -> str:
    """Return the line by which a token is known. A group that is named * has %2A in it."""
    given = (
        [EVERY_GROUP] if isinstance(groups, AllGroups) else [quote(one, safe="") for one in groups]
    )
    known = f"sha256:{_digest(token).hex()}" + (f"@{quote(role, safe='')}" if role else "")
    return " ".join([quote(name, safe=""), known, *given])


def _parse(lines: Iterable[str], where: str) -> list[Token]:
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
                f"{where}: line {number} is not NAME sha256:HASH GROUP…; `rag-index serve"
                " --new-token NAME` prints one"
            )
        if unquote(found["name"]).startswith(JWT):
            raise SettingsError(
                f"{where}: line {number} has a name that begins with {JWT}, as that of a JWT's"
                " subject does"
            )
        named = found["groups"].split()
        groups = ALL_GROUPS if EVERY_GROUP in named else frozenset(map(unquote, named))
        name, role = unquote(found["name"]), unquote(found["role"] or "")
        tokens.append(
            (
                bytes.fromhex(found["hash"]),
                Caller(name, groups, role, {"sub": name} if role else {}),
            )
        )
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Return whether this address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_tokens(serve: ServeSettings, tokens: TokenRegister) -> None:
    """Raise SettingsError if others than the users of this machine could ask without a token."""
    if tokens.any:
        return
    remedy = (
        "make a token with `rag-index serve --new-token NAME` and put its line into [serve] tokens"
    )
    if not is_loopback(serve.host):
        raise SettingsError(
            f"other machines can reach {serve.host}, so the service needs tokens: {remedy}"
        )
    if serve.hosts:
        raise SettingsError(
            f"[serve] hosts says that others reach the service as {serve.hosts[0]}, so it needs"
            f" tokens: {remedy}"
        )


def allowed_hosts(serve: ServeSettings, tokens: TokenRegister) -> frozenset[str] | None:
    """Return the names that a request's Host may have, None for any.

    Without tokens this keeps out web pages that have their own name point at this machine (DNS
    rebinding). With tokens such a page has none, and any name is good unless the settings list
    them.
    """
    if serve.hosts:
        return frozenset(serve.hosts) | LOOPBACK_NAMES
    if (
        tokens.required and not serve.proxy
    ):  # what a page may not have is a token; a header it can write
        return None
    name = serve.host.lower()
    return LOOPBACK_NAMES | {f"[{name}]" if ":" in name and not name.startswith("[") else name}
