"""A model hub on loopback that speaks the protocol of Hugging Face, with the faults that a test
wants."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

READ_AGAIN = """
import importlib
from huggingface_hub import constants
importlib.reload(constants)
"""
"""Code that lets the hub's library read its variables again, which it does once for a process."""


class Hub(ThreadingHTTPServer):
    """A hub with one repository. `settings` are the variables by which a process uses it."""

    daemon_threads = True

    def __init__(self, repository: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.commits: dict[str, dict[str, bytes]] = {}
        self.newest = ""
        self.status = 0
        """The status of every answer, if it is not 0."""
        self.stops_in = ""
        """The file in whose middle the hub stops to send, until `go_on` is set."""
        self.stopped, self.go_on = threading.Event(), threading.Event()
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment of a process that uses this hub, with its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}

    def commit(self, folder: Path) -> str:
        """Let the files of a folder be the newest of the repository, and return the commit."""
        files = {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        self.newest = hashlib.sha1(
            repr(sorted(files.items())).encode(), usedforsecurity=False
        ).hexdigest()
        self.commits[self.newest] = files
        return self.newest

    def sent(self, file: str) -> int:
        """Return how often a file was sent."""
        return sum(line.startswith("GET") and line.endswith(f"/{file}") for line in self.requests)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, send: bool) -> None:
        hub, path = self.server, urlsplit(self.path).path.strip("/")
        hub.requests.append(f"{self.command} /{path}")
        if hub.status:
            self._send(hub.status, b'{"error": "no"}', {"X-Error-Message": "no"}, send=send)
            return
        about, there, rest = path.partition(f"api/models/{hub.repository}")
        if there and not about:
            self._about(rest.strip("/"), send=send)
            return
        before, there, rest = path.partition(f"{hub.repository}/resolve/")
        revision, _, file = rest.partition("/")
        commit = self._commit(revision)
        content = hub.commits.get(commit, {}).get(file)
        if before or not there or content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, send=send)
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self._send(200, content, headers, send=send, stops=send and file == hub.stops_in)

    def _about(self, rest: str, *, send: bool) -> None:
        """Answer what the repository has at a revision: `revision/main`, or `tree/main`."""
        hub = self.server
        what, _, revision = rest.partition("/")
        commit = self._commit(revision or "main")
        if commit not in hub.commits:
            self._send(
                404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"}, send=send
            )
            return
        files = hub.commits[commit]
        answer: Any = {
            "id": hub.repository,
            "sha": commit,
            "siblings": [{"rfilename": name} for name in files],
        }
        if what == "tree":
            answer = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha256(content).hexdigest()[:40],
                }
                for name, content in files.items()
            ]
        self._send(
            200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, send=send
        )

    def _commit(self, revision: str) -> str:
        return self.server.newest if revision == "main" else revision

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, send: bool, stops: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if stops:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stopped.set()
            self.server.go_on.wait()
        elif send:
            self.wfile.write(body)
