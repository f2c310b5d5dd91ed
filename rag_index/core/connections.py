"""HTTP connections: their TLS, the proxy from the environment, a limit of time and size for a
complete answer (httpx limits each read alone), and the reason of a failure. `why_failed` names the
fault if the other end is reachable, so that nobody looks for a server that does not run."""

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
"""OpenSSL's reasons for an answer that is not TLS."""

ALERT = r"\x15\x03"
"""The beginning of a TLS alert, as h11 shows it in place of a status line."""
MAX_ANSWER = 256 << 20
"""The largest answer, in bytes. A thousand vectors of 4096 dimensions take a third of it as
JSON."""
IDLE_SECONDS = 5.0
"""A connection that was idle for longer is not used again: a firewall or proxy in between may have
dropped it. Chosen: below the usual keep-alive of servers."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that all clients of this process share. A context of its own would
    take each of them 25 ms, to read the certificates. Raises SettingsError if the file in
    SSL_CERT_FILE holds no certificates."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is a subclass
        raise SettingsError(
            f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE', '')} cannot be used ({error}): let it"
            " name a file of certificates (PEM) that this user may read"
        ) from error


def trusted_certificates() -> bytes | None:
    """Return the authorities that `tls_context` trusts, in PEM, for clients that do not read
    SSL_CERT_FILE, such as gRPC. OpenSSL loads those of SSL_CERT_DIR when a connection first needs
    them; before that they are missing."""
    authorities = tls_context().get_ca_certs(binary_form=True)
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, authorities))
    return pem.encode() or None


def proxy_of(url: str) -> str:
    """Return the URL of the proxy that the environment names for an address; "" if there is
    none."""
    address = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy:
        return ""
    # NO_PROXY excludes this host.
    host = address.netloc.rpartition("@")[2]
    if proxy_bypass(host):
        return ""
    # HTTPS_PROXY=gpu:3128 has no scheme.
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_remedy(url: str) -> str:
    """Return what to do about a proxy that prevents a connection to an address."""
    return f"correct it, or put {urlsplit(url).hostname} into NO_PROXY"


def why_failed(error: BaseException, url: str) -> str:
    """Return why a request to an address failed and what to do, if the cause is TLS, a proxy, or
    http in place of https; else ""."""
    # `tls_context` or `BoundedTransport` raised it, with a complete message.
    if isinstance(error, SettingsError):
        return str(error)
    chain = list(causes(error))
    for cause in chain:
        # An unexpected EOF means that the other end closed the connection: no fault of TLS.
        if isinstance(cause, ssl.SSLError):
            if "EOF" in str(cause):
                break
            return _tls_fault(cause)
    proxy = proxy_of(url)
    if proxy:
        fault = _proxy_fault(chain)
        if fault:
            shown = _without_login(proxy)
            return f"the proxy {shown} that the environment names {fault}: {proxy_remedy(url)}"
    # The server broke the protocol: it may expect https.
    if url.startswith("http://"):
        broken = next((str(e) for e in chain if isinstance(e, httpx.RemoteProtocolError)), "")
        if ALERT in broken:
            return "it speaks TLS on this port: write https:// in place of http://"
        if "without sending a response" in broken:
            return "it ended the connection without an answer: write https:// if it speaks TLS"
    return ""


def _proxy_fault(chain: list[BaseException]) -> str:
    """Return how the proxy failed, such as "accepts no connection"; "" if it did not."""
    for cause in chain:
        # The proxy refused: "407 Proxy Authentication Required".
        if isinstance(cause, httpx.ProxyError):
            return f"answers {cause}"
    for cause in chain:
        if isinstance(cause, ConnectionRefusedError | httpx.ConnectError):
            return "accepts no connection"
    return ""


def _without_login(url: str) -> str:
    """Return scheme, host and port of a URL."""
    address = urlsplit(url)
    host = address.netloc.rpartition("@")[2]
    return f"{address.scheme}://{host}"


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        # "Hostname mismatch, certificate is not valid for 'gpu'"
        if error.verify_code in WRONG_NAME:
            return (
                f"its certificate is of another name ({reason}): write the address with a name of"
                " the certificate"
            )
        # "certificate has expired"
        if error.verify_code in WRONG_TIME:
            return (
                f"its certificate is not valid now ({reason}): renew it, or correct the clock of"
                " this machine"
            )
        # "self-signed certificate", "unable to get local issuer certificate"
        return (
            f"its certificate is not trusted ({reason}): set SSL_CERT_FILE to a file with that of"
            " its authority"
        )
    reason = str(getattr(error, "reason", None) or error)
    if reason in NO_TLS:
        return f"it speaks no TLS ({reason}): write http:// in place of https://"
    # "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    if "CERTIFICATE" in reason:
        return (
            f"it demands a certificate of its client ({reason}): rag-index has none, so put a proxy"
            " before it"
        )
    # "NO_CIPHERS_AVAILABLE", "UNSUPPORTED_PROTOCOL"
    return (
        f"no TLS connection can be made ({reason}): compare the versions, ciphers and certificates"
        " that it demands"
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes, each once. The context counts too, because
    Ollama's client raises `from None`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class BoundedTransport(httpx.HTTPTransport):
    """Connections to `url` through the proxy that the environment names. Each answer, headers
    included, takes at most `seconds` and `size` bytes. Raises SettingsError if the proxy cannot be
    used."""

    def __init__(self, url: str, seconds: float, size: int | None = None) -> None:
        limits = httpx.Limits(keepalive_expiry=IDLE_SECONDS)
        try:
            super().__init__(verify=tls_context(), limits=limits, proxy=_named_proxy(url))
        # ImportError: SOCKS without its package. ValueError: an unknown kind of proxy.
        except (ImportError, ValueError) as exc:
            reason = one_line(exc)
            raise SettingsError(
                f"the proxy that the environment names for {url} cannot be used ({reason}):"
                f" {proxy_remedy(url)}"
            ) from exc
        self._pool._network_backend = _BoundedBackend(seconds, size or MAX_ANSWER)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises httpx.DecodingError for a compressed answer, because its size is
        unknown until it is in memory."""
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            response.close()
            raise httpx.DecodingError(
                f"the answer is compressed ({encoding}), which was not asked for"
            )
        return response


def _named_proxy(url: str) -> httpx.Proxy | None:
    proxy = proxy_of(url)
    if not proxy:
        return None
    tls = tls_context() if proxy.startswith("https://") else None
    return httpx.Proxy(proxy, ssl_context=tls)


class _BoundedBackend(httpcore.SyncBackend):
    def __init__(self, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        stream = super().connect_tcp(*args, **options)
        return _BoundedStream(stream, self._seconds, self._size)


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, seconds: float, size: int) -> None:
        self._stream = stream
        self._seconds = seconds
        self._size = size
        # Bytes and time left for the present answer. Nothing was sent yet, so there is no deadline.
        self._left = size
        self._deadline = math.inf
        self.close = stream.close  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        # A request begins a new answer.
        self._left = self._size
        self._deadline = time.monotonic() + self._seconds

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
        stream = self._stream.start_tls(*args, **options)
        return _BoundedStream(stream, self._seconds, self._size)
