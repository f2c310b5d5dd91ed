"""Authentication: callers with tokens of the service, with JWTs of an issuer, or behind a proxy; and
the host names of the service.

A token has 256 random bits. It cannot be guessed, however fast hashing is, so one round of SHA-256
is enough. The line of a token has only its hash: `NAME sha256:HASH`, followed by `@ROLE` if it has
a role in the database, and by its groups. All names are percent-encoded. In place of groups, `*`
stands for all documents. Everything fails closed: a value that is missing, malformed or of another
type is no caller, or no group.
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
"""The beginning of every token, by which secret scanners can detect a leaked token."""

LINE = re.compile(
    r"(?P<name>[^\s#]\S*)\s+sha256:(?P<hash>[0-9a-fA-F]{64})(@(?P<role>\S+))?(?P<groups>(\s+\S+)*)"
)
EVERY_GROUP = "*"
FILE_CHECK_SECONDS = 1.0
"""How long a withdrawn token still works at most: the file is not checked for each request."""
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
"""Signatures with a public key. With any other algorithm, a reader of the keys could sign."""
LEEWAY_SECONDS = 30.0
"""How far the clocks of issuer and service may differ."""
FRESH_KEYS_SECONDS = 300.0
"""Older keys are read again, beside the requests. Older than twice that, a request waits for it."""
KEYS_PAUSE_SECONDS = 30.0
"""The shortest time between two readings, so that invalid tokens do not flood the issuer. One more
reading is allowed in between, for a token that no known key verifies."""
MAX_OLD_SECONDS = 3600.0
"""How long keys remain valid while the issuer is unavailable."""
TIMEOUT_SECONDS, MAX_KEYS_BYTES = 5.0, 1_000_000
"""Limits of an issuer's answer. Chosen; a list of keys has some kilobytes."""
UNPACKED = {"Accept-Encoding": "identity"}
JWT = "jwt:"
"""The beginning of the name of a caller with a JWT. No token of the service may have it."""
MAX_JWT_CHARS = 16_000
"""Longer tokens are refused unread. The headers of a request are limited to about as much."""


class IssuerKeys:
    """The public keys of an issuer (JWKS), which are read when they are needed. For one event
    loop."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: list[PyJWK] = []
        self._read_at = self._tried_at = -float("inf")
        self._one_more = False
        self._reading: asyncio.Task[None] | None = None

    async def verify(self, token: str, **expected: Any) -> dict[str, Any] | None:
        """Return the claims of a JWT that one of the keys verifies; None if none does.

        Keys are read beside the requests. A request waits only if no key verifies its token, or if
        the keys are old.

        Args:
            expected: What the claims must have, as the arguments of `jwt.decode`.

        Raises:
            TransientError: The keys cannot be read, or could not be for too long.
            PyJWTError: The token is malformed, or its claims are not the `expected` ones.
        """
        claims = self._claims(token, expected)
        now = self._clock()
        is_due = now - self._tried_at > KEYS_PAUSE_SECONDS
        age = now - self._read_at
        # A key that is not known, or keys that are old.
        is_wanted = claims is None or age > FRESH_KEYS_SECONDS
        # A key that was published shortly after the last reading.
        may_try_early = claims is None and self._one_more
        if (is_due and is_wanted) or may_try_early:
            self._tried_at = now
            self._one_more = is_due
            self._reading = asyncio.create_task(self._read())
        # Shielded: the next request needs the keys, too, if this one is cancelled.
        if self._reading and (claims is None or age > 2 * FRESH_KEYS_SECONDS):
            await asyncio.shield(self._reading)
            claims = self._claims(token, expected)
        if self._clock() - self._read_at > MAX_OLD_SECONDS:
            raise TransientError(f"the keys of [serve] jwt_keys {self._url} cannot be read")
        return claims

    def _claims(self, token: str, expected: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the claims of a token from the first key that verifies it; None if none does."""
        import jwt

        header = jwt.get_unverified_header(token)
        key_id = header.get("kid")
        for key in self._keys:
            # The key of the token's id, or a key without one. A token without an id tries all.
            may_verify = key_id is None or key.key_id in (key_id, None)
            if not may_verify or key.algorithm_name != header.get("alg"):
                continue
            with suppress(jwt.InvalidSignatureError):
                return jwt.decode(token, key, algorithms=ALGORITHMS, **expected)
        return None

    async def _read(self) -> None:
        """Read the keys. If that fails, log the reason and keep the known keys."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                self._take(await self._request())
        except Exception as exc:  # noqa: BLE001 - whatever an issuer answers, others are known by their keys
            late = f"no whole answer within {TIMEOUT_SECONDS:g} s"
            reason = why_failed(exc, self._url) or str(exc) or late
            logger.error("[serve] jwt_keys %s cannot be read: %s", self._url, reason)

    async def _request(self) -> bytes:
        """Return the answer of the issuer. Raises SettingsError if it is too large.

        A compressed answer is not decompressed: a small one could become very large.
        """
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
        """Replace the keys by those of an answer, which may have none.

        Raises SettingsError, and changes nothing, if it is not a list of keys.
        """
        try:
            given = list(json.loads(text)["keys"])
        except (ValueError, TypeError, KeyError) as exc:
            raise SettingsError(f"it has no keys (JWKS) to read: {exc!r}") from exc
        listed = [key for key in given if isinstance(key, dict)]
        if given and not listed:
            raise SettingsError("it has no keys (JWKS) to read: nothing in the list is a key")
        keys: list[PyJWK] = []
        for key in listed:
            keys += _usable(key)
        self._keys = keys
        self._read_at = self._clock()


def _usable(listed: Mapping[str, Any]) -> list[PyJWK]:
    """Return a listed key once for each algorithm whose signatures it may verify.

    That is its own algorithm, or every one that its type allows. The list is empty for a key that
    signs or encrypts, that is too short, or whose type is not known.
    """
    from jwt import PyJWK

    operations = listed.get("key_ops")
    may_verify = operations is None or (isinstance(operations, list) and "verify" in operations)
    # A key for encryption, or a private key ("d"), which must not be published.
    if listed.get("use") not in (None, "sig") or "d" in listed or not may_verify:
        return []
    keys = list[PyJWK]()
    for algorithm in ALGORITHMS:
        # A malformed key, or one of another type. The other keys of the list are still good.
        with suppress(Exception):
            key = PyJWK(dict(listed), algorithm)
            # Refuses an elliptic curve of another algorithm.
            prepared = key.Algorithm.prepare_key(key.key)
            is_ours = listed.get("alg") in (None, algorithm)
            # `check_key_length` returns a complaint.
            if is_ours and key.Algorithm.check_key_length(prepared) is None:
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
        """Prepare both ways. The first of the `roles` is that of a JWT without one of its own."""
        self._serve = serve
        self._role = roles[0] if roles else ""
        self._networks = [ip_network(network) for network in serve.proxy]
        self._keys = IssuerKeys(serve.jwt_keys, clock=clock) if serve.jwt_keys else None
        self.any = bool(self._keys or self._networks)
        """Whether the settings have one of these ways."""

    def proxied(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """Return the caller whose groups a proxy names in its header; None for another request.

        Args:
            address: The address of the connection.
        """
        name = (self._serve.proxy_groups or "").lower().encode("latin-1")
        given = [value for header, value in headers if header.lower() == name]
        # With two such headers, one may be the caller's own.
        if len(given) != 1:
            return None
        try:
            peer = ip_address(address)
            groups = given[0].decode().split(",")
        except ValueError:
            return None
        # "::ffff:10.0.0.1" is 10.0.0.1, as a socket for both families names it.
        peer = getattr(peer, "ipv4_mapped", None) or peer
        if not any(peer in network for network in self._networks):
            return None
        return Caller(groups=frozenset(filter(None, map(str.strip, groups))))

    async def verify(self, token: str) -> Caller | None:
        """Return the caller of a JWT; None if it is not valid.

        Raises TransientError if the keys of the issuer cannot be read.
        """
        if self._keys is None or len(token) > MAX_JWT_CHARS or token.count(".") != 2:
            return None
        issuer = self._serve.jwt_issuer
        required = ["exp", "aud"]
        if issuer:
            required.append("iss")
        try:
            claims = await self._keys.verify(
                token,
                audience=self._serve.jwt_audience,
                issuer=issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": required},
            )
        except TransientError:
            raise
        except Exception as exc:  # noqa: BLE001 - a token that cannot be read is not valid
            logger.info("a JWT was refused: %s", type(exc).__name__)
            return None
        if claims is None:
            logger.info("a JWT was refused: no key of [serve] jwt_keys verifies it")
            return None
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        """Return the caller that the claims of a valid JWT describe."""
        name = JWT + quote(str(claims.get("sub", "")), safe="@ :|")
        groups = _groups(claims, self._serve.jwt_groups)
        role = self._role
        if self._serve.jwt_role:
            role = claim_of(claims, self._serve.jwt_role)
        # Without a role, no row policy reads the claims.
        if not isinstance(role, str) or not role:
            return Caller(name, groups)
        return Caller(name, groups, role, claims)


def _groups(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the groups in a claim: "staff", or ["staff", "admin"]. Other values are no groups."""
    found = claim_of(claims, name)
    values = [found] if isinstance(found, str) else found
    if not isinstance(values, list):
        return frozenset()
    return frozenset(value for value in values if isinstance(value, str) and value)


class TokenRegister:
    """The tokens of the settings and of the file that they name. `sign_on` has the other ways to
    authenticate."""

    def __init__(
        self,
        serve: ServeSettings,
        roles: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read all tokens.

        Args:
            roles: The `caller_roles` of the settings.

        Raises:
            SettingsError: The file cannot be read, or a line is not valid.
        """
        self._clock = clock
        self._given = _parse(serve.tokens, "[serve] tokens")
        self._path = serve.tokens_file
        self._stamp = file_stamp(self._path) if self._path else None
        self._checked_at = clock()
        self._tokens = [*self._given, *self._read()]
        self._damage = ""
        """Why the file cannot be read now; empty if it can."""
        self.sign_on = SignOn(serve, roles, clock=clock)
        self.any = bool(self._tokens) or self.sign_on.any
        """Whether there is a token, or another way to authenticate."""
        self.required = self.any or self._path is not None
        """Whether callers must authenticate. A file that has become empty does not open the service
        to everybody."""

    def caller(self, token: str) -> Caller | None:
        """Return the caller of a token; None if it is unknown.

        The time that this takes does not depend on how similar a wrong token is.
        """
        self._read_changes()
        digest = _digest(token)
        # Every token is compared, also after a match.
        found = [caller for known, caller in self._tokens if hmac.compare_digest(known, digest)]
        return found[-1] if found else None

    def check(self) -> None:
        """Raise SettingsError while the file is unreadable or invalid: its tokens are unknown
        then."""
        self._read_changes()
        if self._damage:
            raise SettingsError(self._damage)

    def _read_changes(self) -> None:
        """Read the file again if it has changed, at most once a second."""
        if self._path is None or self._clock() - self._checked_at < FILE_CHECK_SECONDS:
            return
        self._checked_at = self._clock()
        stamp = file_stamp(self._path)
        # A damaged file is read again in any case: a correction of its rights is no change.
        if stamp == self._stamp and not self._damage:
            return
        self._stamp = stamp
        try:
            of_file = self._read()
            self._damage = ""
        # None of its tokens is valid: one of them may have been revoked.
        except SettingsError as error:
            of_file = []
            self._damage = str(error)
        self._tokens = [*self._given, *of_file]

    def _read(self) -> list[Token]:
        """Return the tokens of the file. Raises SettingsError."""
        if self._path is None:
            return []
        lines = read_written(self._path, "[serve] tokens_file").split("\n")
        return _parse(lines, str(self._path))


def new_token() -> str:
    """Return a token with 256 random bits."""
    return TOKENS_BEGIN + secrets.token_urlsafe(32)


def token_line(name: str, token: str, groups: Iterable[str] | AllGroups, role: str = "") -> str:
    """Return the line of a token for the settings: `desk sha256:0123… staff admin`."""
    words = [quote(name, safe=""), f"sha256:{_digest(token).hex()}"]
    if role:
        words[-1] += f"@{quote(role, safe='')}"
    if isinstance(groups, AllGroups):
        words.append(EVERY_GROUP)
    # A group that is named * becomes %2A.
    else:
        words += [quote(group, safe="") for group in groups]
    return " ".join(words)


def _parse(lines: Iterable[str], where: str) -> list[Token]:
    """Return the tokens of these lines. Empty lines and comments are skipped.

    Args:
        where: The place of the lines for a message.

    Raises:
        SettingsError: A line is not valid. The message does not repeat it, because it may hold a
            token in clear text.
    """
    tokens = list[Token]()
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
        name = unquote(found["name"])
        if name.startswith(JWT):
            raise SettingsError(
                f"{where}: line {number} has a name that begins with {JWT}, as that of a JWT's"
                " subject does"
            )
        named = found["groups"].split()
        # `*` itself, not a group with that name, which is written %2A.
        groups = ALL_GROUPS if EVERY_GROUP in named else frozenset(map(unquote, named))
        role = unquote(found["role"] or "")
        caller = Caller(name, groups, role, {"sub": name} if role else {})
        tokens.append((bytes.fromhex(found["hash"]), caller))
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach this address."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_tokens(serve: ServeSettings, tokens: TokenRegister) -> None:
    """Raise SettingsError if other machines could send requests without a token."""
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
    """Return the allowed values of a request's Host; None if any is allowed.

    The list refuses web pages whose own name points at this machine (DNS rebinding).
    """
    if serve.hosts:
        return frozenset(serve.hosts) | LOOPBACK_NAMES
    # Such a page has no token. But it can write the header of a proxy, so with a proxy the name
    # counts.
    if tokens.required and not serve.proxy:
        return None
    name = serve.host.lower()
    # IPv6: "::1" is [::1] in a Host.
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return LOOPBACK_NAMES | {name}
