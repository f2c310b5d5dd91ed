"""Connections over HTTP: their TLS, the proxy that the environment names, one limit of time and
size for a whole answer (httpx limits each read alone), and why one failed. `why_failed` tells what
is wrong where the other end is there, so that nobody looks for a server that does not run."""

from __future__ import annotations

import math
import os
import ssl
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from rag_index.errors import SettingsError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

WRONG_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host name or IP address
(X509_V_ERR_HOSTNAME_MISMATCH)."""
WRONG_TIME = (9, 10)
"""OpenSSL's codes for a certificate that is not yet valid, or has expired."""
NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
)
"""OpenSSL's reasons for an answer that is no TLS."""

ALERT = r"\x15\x03"
"""The beginning of an alert of TLS, as h11 shows it in place of a status line."""
MAX_ANSWER = 256 << 20
"""Bytes of an answer: a thousand vectors of 4096 dimensions have a third of that as JSON."""
IDLE_SECONDS = 5.0
"""A connection that was idle for longer is not used again: what stands between may have forgotten
it."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of the clients of this process: each that reads the certificates
    itself takes 25 ms. Raises SettingsError if the file that SSL_CERT_FILE names has no
    certificates."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # and ssl.SSLError, which is one
        raise SettingsError(
            f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE', '')} cannot be used ({error}): let it"
            " name a file of certificates (PEM) that this user may read"
        ) from error


def trusted_certificates() -> bytes | None:
    """Return the authorities that `tls_context` trusts, in PEM, for clients that do not read
    SSL_CERT_FILE, such as gRPC. Those of SSL_CERT_DIR are known once a connection has needed
    them."""
    return (
        "".join(
            map(ssl.DER_cert_to_PEM_cert, tls_context().get_ca_certs(binary_form=True))
        ).encode()
        or None
    )


def proxy_of(url: str) -> str:
    """Return the address of the proxy that the environment names for an address; "" if it names
    none."""
    place, known = urlsplit(url), getproxies()
    named = known.get(place.scheme) or known.get("all")
    if not named or proxy_bypass(place.netloc.rpartition("@")[2]):
        return ""
    return named if "://" in named else f"http://{named}"


def proxy_remedy(url: str) -> str:
    """Return what to do about a proxy that is in the way to an address."""
    return f"correct it, or put {urlsplit(url).hostname} into NO_PROXY"


def why_failed(error: BaseException, url: str) -> str:
    """Return why a request to an address failed, and what to do: TLS, a proxy, http in place of
    https; else ""."""
    if isinstance(error, SettingsError):  # of `tls_context`, which says it
        return str(error)
    chain = list(causes(error))
    tls = next((one for one in chain if isinstance(one, ssl.SSLError)), None)
    if tls is not None and "EOF" not in str(
        tls
    ):  # else the other end went away, which says nothing of TLS
        return _tls_fault(tls)
    proxy = proxy_of(url)
    if proxy and any(
        isinstance(one, ConnectionRefusedError | httpx.ConnectError | httpx.ProxyError)
        for one in chain
    ):
        place = urlsplit(proxy)
        named = f"{place.scheme}://{place.netloc.rpartition('@')[2]}"
        said = next(
            (f"answers {one}" for one in chain if isinstance(one, httpx.ProxyError)),
            "accepts no connection",
        )
        return f"the proxy {named} that the environment names {said}: {proxy_remedy(url)}"
    broken = next((str(one) for one in chain if isinstance(one, httpx.RemoteProtocolError)), "")
    if url.startswith("http://") and ALERT in broken:
        return "it speaks TLS on this port: write https:// in place of http://"
    if url.startswith("http://") and "without sending a response" in broken:
        return "it ended the connection without an answer: write https:// if it speaks TLS"
    return ""


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        if error.verify_code in WRONG_NAME:
            return (
                f"its certificate is of another name ({said}): write the address with a name of the"
                " certificate"
            )
        if error.verify_code in WRONG_TIME:
            return (
                f"its certificate is not valid now ({said}): renew it, or correct the clock of this"
                " machine"
            )
        return (
            f"its certificate is not trusted ({said}): set SSL_CERT_FILE to a file with that of its"
            " authority"
        )
    reason = str(getattr(error, "reason", None) or error)
    if reason in NO_TLS:
        return f"it speaks no TLS ({reason}): write http:// in place of https://"
    if "CERTIFICATE" in reason:
        return (
            f"it demands a certificate of its client ({reason}): rag-index has none, so put a proxy"
            " before it"
        )
    return (
        f"no TLS connection can be made ({reason}): compare the versions, ciphers and certificates"
        " that it demands"
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it. Ollama's client hides the cause, but not the context."""
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class BoundedTransport(httpx.HTTPTransport):
    """Connections to `url` whose answers take at most `seconds` and `size` bytes each, headers
    included. They go through the proxy that the environment names. Raises SettingsError if that
    cannot be used."""

    def __init__(self, url: str, seconds: float, size: int | None = None) -> None:
        limits = httpx.Limits(keepalive_expiry=IDLE_SECONDS)
        try:
            super().__init__(verify=tls_context(), limits=limits, proxy=_named_proxy(url))
        except (
            ImportError,
            ValueError,
        ) as exc:  # SOCKS without its package, or another kind of proxy
            raise SettingsError(
                f"the proxy that the environment names for {url} cannot be used ({one_line(exc)}):"
                f" {proxy_remedy(url)}"
            ) from exc
        self._pool._network_backend = _BoundedBackend(seconds, size or MAX_ANSWER)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. A compressed answer is refused, because its size is unknown before it is
        in memory."""
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            response.close()
            raise httpx.DecodingError(
                f"the answer is compressed ({encoding}), which was not asked for"
            )
        return response


def _named_proxy(url: str) -> httpx.Proxy | None:
    named = proxy_of(url)
    tls = tls_context() if named.startswith("https://") else None
    return httpx.Proxy(named, ssl_context=tls) if named else None


class _BoundedBackend(httpcore.SyncBackend):
    def __init__(self, *limits: Any) -> None:
        self._limits = limits

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _BoundedStream(super().connect_tcp(*args, **options), *self._limits)


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, seconds: float, size: int) -> None:
        self._stream, self._seconds, self._size = stream, seconds, size
        self._left, self._deadline = size, math.inf
        self.close, self.get_extra_info = stream.close, stream.get_extra_info  # type: ignore[method-assign]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._left, self._deadline = self._size, time.monotonic() + self._seconds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout(f"no whole answer within {self._seconds:g} s")
        data = self._stream.read(max_bytes, min(seconds, timeout or seconds))
        self._left -= len(data)
        if self._left < 0:
            raise httpcore.ReadError(f"the answer has more than {self._size >> 20} MB")
        return data

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _BoundedStream(self._stream.start_tls(*args, **options), self._seconds, self._size)
