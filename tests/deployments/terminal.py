"""A terminal in which a test types as a person does: programs see a terminal, and one that asks something waits."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from typing import TYPE_CHECKING

from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Terminal"]

CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-_])|\r")
PROMPT = re.compile(r"<(\d+)>\$ $")
"""What the shell shows as soon as a command has ended, with its exit status."""


class Terminal:
    """A shell in a terminal of 120 columns, until the `with` block ends."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "TERM": "xterm-256color", "PS1": "<$?>$ "}
        self._output = bytearray()

    def __enter__(self) -> Terminal:
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"],
            stdin=inner, stdout=inner, stderr=inner, cwd=self._folder, env=self._environment,
        )  # fmt: skip
        os.close(inner)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._prompt()
        return self

    def __exit__(self, *error: object) -> None:
        """Press Ctrl-C, then close the window."""
        if self._shell.poll() is None:
            os.write(self._screen, b"\x03")
            try:
                self._prompt()
            finally:
                os.killpg(self._shell.pid, signal.SIGHUP)
                self._shell.kill()
        self._shell.wait()
        self._reader.join()
        os.close(self._screen)

    def text(self) -> str:
        """Return everything that was shown, without colours."""
        return CONTROL.sub("", self._output.decode(errors="replace"))

    def type(self, line: str) -> None:
        """Type a line and press Enter, without waiting for what it does."""
        os.write(self._screen, f"{line}\n".encode())

    def run(self, line: str, *, code: int = 0) -> str:
        """Type a command and return what it shows, as soon as the prompt is back; nobody answers a question."""
        begin = len(self.text())
        self.type(line)
        eventually(lambda: "\n" in self.text()[begin:], "the line is echoed", every=0.05)
        ended = self._prompt()
        shown = self.text()[begin:]
        assert ended == code, shown
        return shown

    def _prompt(self) -> int:
        """Wait for the prompt, and return the exit status that it shows."""
        found = eventually(
            lambda: PROMPT.search(self.text()), lambda: f"the prompt is back after {self.text()[-2000:]}", every=0.05
        )
        assert found
        return int(found[1])

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self._screen, 65536)
            except OSError:  # EIO: nothing has the terminal open any more
                return
            if not read:
                return
            self._output += read
