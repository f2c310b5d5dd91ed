"""Headless Chromium, told what to do by its DevTools protocol: a page of Prefect's UI as a person sees it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

__all__ = ["Browser", "find_chromium"]

START_SECONDS = 60
SIZE = (1400, 1100)


def find_chromium() -> Path | str:
    """The program, or why there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    return "there is no Chromium (apt-get install chromium)"


class Browser:
    """One window, for the time of a `with` block. Pictures are written to the folder $SCREENSHOTS, where that is set.

    $SCREENSHOTS=docs/images is how the pictures of docs/operations.md are made.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        pictures = os.environ.get("SCREENSHOTS")
        self._pictures = Path(pictures).absolute() if pictures else None
        self._number = 0

    def __enter__(self) -> Browser:
        self._folder.mkdir(parents=True, exist_ok=True)
        said = self._folder / "chromium.log"
        command = [
            str(self._program), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-extensions", "--no-proxy-server", "--hide-scrollbars",
            f"--user-data-dir={self._folder / 'profile'}", "--remote-debugging-port=0",
            f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank",
        ]  # fmt: skip
        with said.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"ws://([^/\s]+)/", said.read_text())):
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        with httpx.Client(trust_env=False) as client:
            pages = client.get(f"http://{found[1]}/json/list").json()
        page = next(page for page in pages if page["type"] == "page")
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def words(self) -> str:
        """What can be read on the page now."""
        return " ".join(str(self._evaluate("document.body ? document.body.innerText : ''")).split())

    def see(self, *expected: str, seconds: float = 60) -> str:
        """The page's words, once all of these are among them."""
        deadline = time.monotonic() + seconds
        while True:
            words = self.words()
            missing = [one for one in expected if one not in words]
            if not missing:
                return words
            assert time.monotonic() < deadline, f"{missing} are not on the page: {words}"
            time.sleep(0.25)

    def click(self, words: str) -> None:
        """Click what has exactly these words on it."""
        script = (
            "(() => { const found = [...document.querySelectorAll('body *')].filter("
            f"e => e.innerText && e.innerText.trim() === {json.dumps(words)});"
            "if (found.length) found[found.length - 1].click(); return found.length })()"
        )
        deadline = time.monotonic() + 30
        while not self._evaluate(script):
            assert time.monotonic() < deadline, f"nothing to click says {words!r}: {self.words()}"
            time.sleep(0.25)

    def picture(self, name: str, *, height: int = SIZE[1]) -> None:
        """A PNG of what is seen, where pictures are wanted."""
        if self._pictures:
            size = {"width": SIZE[0], "height": height, "deviceScaleFactor": 1, "mobile": False}
            self._call("Emulation.setDeviceMetricsOverride", **size)
            time.sleep(2)  # what moves on the page has come to rest
            shot = self._call("Page.captureScreenshot", format="png")
            self._pictures.mkdir(parents=True, exist_ok=True)
            (self._pictures / name).write_bytes(base64.b64decode(shot["data"]))

    def _evaluate(self, script: str) -> Any:
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
