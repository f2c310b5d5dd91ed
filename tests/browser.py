"""Headless Chromium, driven over its DevTools protocol, to see pages as a person does."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.waiting import eventually

SIZE = (1400, 1100)
KEYS = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
"""The codes of keys that type no character."""


class Browser:
    """One window, until the `with` block ends; a test that needs one is skipped where no Chromium
    is installed.

    Pictures are written to the folder $SCREENSHOTS if that is set: docs/images for those of
    docs/operations.md and docs/service.md.
    """

    def __init__(self, folder: Path) -> None:
        programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
        self._program = next(filter(None, programs), "")
        if not self._program:
            pytest.skip("there is no Chromium (apt-get install chromium)")
        self._folder = folder
        pictures = os.environ.get("SCREENSHOTS")
        self._pictures = Path(pictures).absolute() if pictures else None
        self._number = 0

    def __enter__(self) -> Browser:
        self._folder.mkdir(parents=True, exist_ok=True)
        output = self._folder / "chromium.log"
        command = [
            self._program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-extensions",
            "--no-proxy-server",
            "--hide-scrollbars",
            f"--user-data-dir={self._folder / 'profile'}",
            "--remote-debugging-port=0",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            "about:blank",
        ]
        with output.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        found = eventually(
            lambda: re.search(r"ws://([^/\s]+)/", output.read_text()), output.read_text, every=0.1
        )
        assert found is not None
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

    @contextmanager
    def at_start(self, script: str) -> Iterator[None]:
        """Run a script in each page before its own, until the block ends."""
        self._call("Page.enable")  # else the script is kept, and never run
        added = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
        yield
        self._call("Page.removeScriptToEvaluateOnNewDocument", **added)
        self._call("Page.disable")

    def reload(self) -> None:
        """Load the page again; what is asked after this is asked of the new one."""
        self.evaluate("window.before = true")
        self._call("Page.reload")
        eventually(
            lambda: self._answer("!window.before"),
            lambda: "the page is not loaded again",
            every=0.1,
        )

    def type(self, words: str) -> None:
        """Type into the element that has the focus."""
        self._call("Input.insertText", text=words)

    def press(self, key: str) -> None:
        """Press a key, which the page sees as one of a keyboard."""
        text = {"Enter": "\r"}.get(key, "" if key in KEYS else key)
        code = KEYS.get(key, ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed
            )

    def fill(self, selector: str, value: str) -> None:
        """Give an input or a select a value, as a person does who then leaves it."""
        found = json.dumps(selector), json.dumps(value)
        script = (
            f"(() => {{ const e = document.querySelector({found[0]}); if (!e) return false; e.value"
            f" = {found[1]};for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind,"
            " {bubbles: true}));return true })()"
        )
        eventually(
            lambda: self.evaluate(script),
            lambda: f"there is no {selector}: {self.words()}",
            every=0.1,
        )

    @contextmanager
    def screen(self, width: int, height: int, *, dark: bool = False) -> Iterator[None]:
        """Give the window another size, and the colours that a person prefers, until the block
        ends."""
        self._resize(width, height)
        self._call("Emulation.setEmulatedMedia", features=[_prefers("dark" if dark else "light")])
        try:
            yield
        finally:
            self._call("Emulation.setEmulatedMedia", features=[])
            self._call("Emulation.clearDeviceMetricsOverride")

    def words(self) -> str:
        """Return the text that is on the page now."""
        return " ".join(str(self._answer("document.body?.innerText") or "").split())

    def wait_for(self, *expected: str) -> str:
        """Return the page's text as soon as it has all of these words."""

        def complete() -> str | None:
            words = self.words()
            return words if all(one in words for one in expected) else None

        def missing() -> str:
            words = self.words()
            return f"{[one for one in expected if one not in words]} are not on the page: {words}"

        return eventually(complete, missing, every=0.25) or ""

    def click(self, words: str) -> None:
        """Click the element that has exactly these words."""
        script = (
            "(() => { const found = [...document.querySelectorAll('body *')].filter("
            f"e => e.innerText && e.innerText.trim() === {json.dumps(words)});"
            "if (found.length) found[found.length - 1].click(); return found.length })()"
        )
        eventually(
            lambda: self.evaluate(script),
            lambda: f"no element says {words!r}: {self.words()}",
            every=0.25,
        )

    def picture(self, name: str, *, width: int = SIZE[0], height: int = SIZE[1]) -> None:
        """Write a PNG of the window if pictures are wanted."""
        if self._pictures:
            self._resize(width, height)
            time.sleep(2)  # until animations have ended
            shot = self._call("Page.captureScreenshot", format="png")
            self._pictures.mkdir(parents=True, exist_ok=True)
            (self._pictures / name).write_bytes(base64.b64decode(shot["data"]))

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def _answer(self, script: str) -> Any:
        """Return the value of an expression; None if the page goes away meanwhile."""
        try:
            return self.evaluate(script)
        except AssertionError as error:
            if "navigated" not in str(error):
                raise
            return None

    def _resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


def _prefers(colours: str) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": colours}
