"""Connections over HTTP: their TLS, the proxy that the environment names, and why one failed. `why_failed` tells what
is wrong where the other end is there, so that nobody looks for a server that does not run."""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

WRONG_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host name or IP address (X509_V_ERR_HOSTNAME_MISMATCH)."""
WRONG_TIME = (9, 10)
"""OpenSSL's codes for a certificate that is not yet valid, or has expired."""
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
"""OpenSSL's reasons for an answer that is no TLS."""

ALERT = r"\x15\x03"
"""The beginning of an alert of TLS, as h11 shows it in place of a status line."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of the clients of this process: each that reads the certificates itself takes 25 ms.
    Raises SettingsError if the file that SSL_CERT_FILE names has no certificates."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:  # and ssl.SSLError, which is one
        raise SettingsError(
            f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE', '')} cannot be used ({error}): let it name a file of "
            "certificates (PEM) that this user may read"
        ) from error


def trusted_certificates() -> bytes | None:
    """Return the authorities that `tls_context` trusts, in PEM, for clients that do not read SSL_CERT_FILE, such as
    gRPC. Those of SSL_CERT_DIR are known once a connection has needed them."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, tls_context().get_ca_certs(binary_form=True))).encode() or None


def proxy_of(url: str) -> str:
    """Return the address of the proxy that the environment names for an address; "" if it names none."""
    place, known = urlsplit(url), getproxies()
    named = known.get(place.scheme) or known.get("all")
    if not named or proxy_bypass(place.netloc.rpartition("@")[2]):
        return ""
    return named if "://" in named else f"http://{named}"


def proxy_remedy(url: str) -> str:
    """Return what to do about a proxy that is in the way to an address."""
    return f"correct it, or put {urlsplit(url).hostname} into NO_PROXY"


def why_failed(error: BaseException, url: str) -> str:
    """Return why a request to an address failed, and what to do: TLS, a proxy, http in place of https; else ""."""
    import httpx

    if isinstance(error, SettingsError):  # of `tls_context`, which says it
        return str(error)
    chain = list(_causes(error))
    tls = next((one for one in chain if isinstance(one, ssl.SSLError)), None)
    if tls is not None and "EOF" not in str(tls):  # else the other end went away, which says nothing of TLS
        return _tls_fault(tls)
    proxy = proxy_of(url)
    if proxy and any(isinstance(one, ConnectionRefusedError | httpx.ConnectError | httpx.ProxyError) for one in chain):
        place = urlsplit(proxy)
        named = f"{place.scheme}://{place.netloc.rpartition('@')[2]}"
        said = next((f"answers {one}" for one in chain if isinstance(one, httpx.ProxyError)), "accepts no connection")
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
            return f"its certificate is of another name ({said}): write the address with a name of the certificate"
        if error.verify_code in WRONG_TIME:
            return f"its certificate is not valid now ({said}): renew it, or correct the clock of this machine"
        return f"its certificate is not trusted ({said}): set SSL_CERT_FILE to a file with that of its authority"
    reason = str(getattr(error, "reason", None) or error)
    if reason in NO_TLS:
        return f"it speaks no TLS ({reason}): write http:// in place of https://"
    if "CERTIFICATE" in reason:
        return f"it demands a certificate of its client ({reason}): rag-index has none, so put a proxy before it"
    return f"no TLS connection can be made ({reason}): compare the versions, ciphers and certificates that it demands"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it. Ollama's client hides the cause, but not the context."""
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
