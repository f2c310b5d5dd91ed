"""Who asks, where another program has made sure of it: the issuer of a JWT, or a proxy at a named address.

Everything fails closed: what is missing, of another type or not understood is no caller, or no group.
"""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from rag_index.errors import SettingsError, TransientError
from rag_index.service.models import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from jwt import PyJWK

    from rag_index.settings import ServeSettings

logger = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key. With the others, whoever can read the keys could sign."""
LEEWAY_SECONDS = 30.0
"""How far the clocks of issuer and service may differ."""
FRESH_SECONDS = 300.0
PAUSE_SECONDS = 30.0
"""The least time between two readings, however many tokens name a key that is not known."""
MAX_OLD_SECONDS = 3600.0
"""How long keys are good that cannot be read again, because the issuer does not answer."""
TIMEOUT_SECONDS = 3.0
MAX_JWT_CHARS = 16_000


class IssuerKeys:
    """The public keys of an issuer (JWKS), from a file or a URL. For one thread."""

    def __init__(self, where: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raise SettingsError if a file has no keys. A URL is asked when a key is needed."""
        self._where, self._clock = where, clock
        self._is_url = "://" in where
        self._fresh = FRESH_SECONDS if self._is_url else PAUSE_SECONDS
        self._keys: list[PyJWK] = []
        self._read_at = self._tried_at = -float("inf")
        if not self._is_url:
            self._read()

    def find(self, key_id: str | None) -> PyJWK | None:
        """Return the key of this id, or the only one if none is named; None if there is no such key.

        Raises TransientError if the keys cannot be read, or have been too old for too long.
        """
        found = self._known(key_id)
        age = self._clock() - self._read_at
        if (found is None or age > self._fresh) and self._clock() - self._tried_at > PAUSE_SECONDS:
            self._tried_at = self._clock()
            try:
                self._read()
            except SettingsError as exc:
                logger.error("%s", exc)
            found = self._known(key_id)
        if self._clock() - self._read_at > MAX_OLD_SECONDS:
            raise TransientError(f"the keys of [serve] jwt_keys {self._where} cannot be read")
        return found

    def _known(self, key_id: str | None) -> PyJWK | None:
        keys = [key for key in self._keys if key_id is None or key.key_id == key_id]
        return keys[0] if len(keys) == 1 else None

    def _read(self) -> None:
        """Read the keys. Raises SettingsError, and keeps those that are known."""
        from jwt import PyJWKSet
        from jwt.exceptions import PyJWTError

        try:
            if self._is_url:
                text = httpx.get(self._where, timeout=TIMEOUT_SECONDS).raise_for_status().text
            else:
                text = Path(self._where).read_text(encoding="utf-8")
            keys = PyJWKSet.from_dict(json.loads(text)).keys
        except (OSError, ValueError, AttributeError, TypeError, httpx.HTTPError, PyJWTError) as exc:
            raise SettingsError(f"[serve] jwt_keys {self._where} has no keys (JWKS) to read: {exc}") from exc
        self._keys = [key for key in keys if key.public_key_use in (None, "sig")]
        self._read_at = self._clock()


class SignOn:
    """The callers of whom an issuer of JWTs or a proxy has made sure."""

    def __init__(self, serve: ServeSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raise SettingsError if the file with the issuer's keys cannot be read."""
        self._serve = serve
        self._networks = [ip_network(one) for one in serve.proxy]
        self._keys = IssuerKeys(serve.jwt_keys, clock=clock) if serve.jwt_keys else None
        self._thread = ThreadPoolExecutor(1, "rag-index-jwt")

    @property
    def any(self) -> bool:
        """Whether anybody can ask in one of these ways."""
        return bool(self._keys or self._networks)

    def proxied(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """Return the caller that a proxy at this address names by its header; None if this is no such request.

        A header that is there twice is no such request either: one of them may be the caller's own.
        """
        name = (self._serve.proxy_groups or "").lower().encode("latin-1")
        given = [value for header, value in headers if header.lower() == name]
        if len(given) != 1 or not self._is_proxy(address):
            return None
        try:
            groups = given[0].decode().split(",")
        except UnicodeDecodeError:
            return None
        return Caller(groups=frozenset(filter(None, map(str.strip, groups))))

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)

    def verify(self, token: str) -> Future[Caller | None] | None:
        """Start to verify a JWT in a thread of its own, since keys may have to be read; None if it cannot be one."""
        if self._keys is None or len(token) > MAX_JWT_CHARS or token.count(".") != 2:
            return None
        return self._thread.submit(self._verified, token)

    def _verified(self, token: str) -> Caller | None:
        """Return whom a JWT stands for; None if it is not valid. Raises TransientError if there are no keys."""
        import jwt

        if self._keys is None:
            return None
        try:
            key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._serve.jwt_audience,
                issuer=self._serve.jwt_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud", *(["iss"] if self._serve.jwt_issuer else [])]},
            )
        except TransientError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with it, such a token is nobody's
            logger.info("a JWT was refused: %s", type(exc).__name__)
            return None
        return Caller(quote(str(claims.get("sub", "")), safe="@ :|") or "jwt", _groups(claims, self._serve.jwt_groups))


def _groups(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the groups that a claim holds: a list of texts, or a text. Dots lead into claims that hold objects."""
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(value for value in values if isinstance(value, str) and value)
