"""A server on loopback that speaks TLS, with the certificate that a test wants; it answers nothing useful."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Print nothing: that clients break off is what is tried."""

    def shutdown_request(self, request: Any) -> None:
        """Read what the client still sends: closed before, the connection would be reset, and the alert lost."""
        with suppress(OSError):
            request.settimeout(1)
            while socket.socket.recv(request, 65536):
                pass
        super().shutdown_request(request)


class TlsServer:
    """It is at `https://localhost:PORT`. Without `folder` it speaks no TLS."""

    def __init__(
        self, folder: Path | None = None, *, name: str = "localhost", days: int = 2, client: bool = False
    ) -> None:
        self._server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.certificate = None if folder is None else _certificate(folder, name, days)
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            if client:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.certificate)
            listening = self._server.socket
            self._server.socket = context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.url = f"https://localhost:{self.port}"

    def __enter__(self) -> TlsServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _certificate(folder: Path, name: str, days: int) -> Path:
    """Write a certificate of this name that is valid until `days` from now, with its key, and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    until = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(until - timedelta(days=30))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / f"{name}.pem"
    secret = key.private_bytes(encoding, form, serialization.NoEncryption())
    file.write_bytes(secret + made.public_bytes(encoding))
    return file
