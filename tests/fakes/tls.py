"""A server on loopback that speaks TLS, with the certificate that a test wants, and answers nothing
useful; and a proxy that ends TLS before a server that does, with a certificate of a private
authority."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Print nothing: that clients break off is what is tried."""

    def shutdown_request(self, request: Any) -> None:
        """Read what the client still sends: closed before, the connection would be reset, and the
        alert lost."""
        with suppress(OSError):
            request.settimeout(1)
            while socket.socket.recv(request, 65536):
                pass
        super().shutdown_request(request)


class TlsServer:
    """It is at `https://localhost:PORT`. Without `folder` it speaks no TLS."""

    def __init__(
        self, folder: Path | None = None, *, name="localhost", days=2, client=False
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
            self._server.socket = context.wrap_socket(
                listening, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self.url = f"https://localhost:{self.port}"

    def __enter__(self) -> TlsServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class PrivateAuthority:
    """An authority that no client knows, whose own certificate is the file `certificate`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(folder, "authority", 2, self._key, authority=True)

    def sign(self, name: str = "localhost") -> Path:
        """Return a file with a new key and its certificate for this name."""
        return _certificate(self._folder, name, 2, self._key)


class TlsFront:
    """A proxy at `port` that ends TLS before another port of loopback. It passes bytes on, so gRPC
    comes through."""

    def __init__(self, authority: PrivateAuthority, port: int) -> None:
        self._behind, self._loop = port, asyncio.new_event_loop()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(authority.sign())
        self._tls.set_alpn_protocols(["h2", "http/1.1"])

    def __enter__(self) -> TlsFront:
        served = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._loop.run_until_complete(served).sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in asyncio.all_tasks(self._loop):
            self._loop.call_soon_threadsafe(task.cancel)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.1, self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asked = await asyncio.open_connection("127.0.0.1", self._behind)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(_pass_on(reader, asked), _pass_on(answers, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _certificate(
    folder: Path, name: str, days: int, signer: Any = None, *, authority: bool = False
) -> Path:
    """Write a certificate of this name that is valid until `days` from now, with its key, and
    return the file. It is signed by itself, or by an authority, whose own has that key."""
    key = signer if signer and authority else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]) if signer else subject
    )
    until = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(until - timedelta(days=30))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signer or key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    return file
