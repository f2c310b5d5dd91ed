"""A program in a terminal of its own, and what it draws there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.forked_program import start_in_terminal


def in_terminal(
    command: Sequence[str], width: int, *, until=None, forked: bool = False, **environment: str
) -> str:
    """Return what a command writes to its standard error if that is a terminal of this width. It
    gets Ctrl-C `until` is true of that. Python code (`-c`) may be `forked`, see
    forked_program.py."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    given = {**inherited, "TERM": "xterm", **environment}
    with Path(os.devnull).open("wb") as nowhere:
        if forked:
            running = start_in_terminal(command[2], command[3:], given, terminal, nowhere.fileno())
        else:
            running = subprocess.Popen(
                command, stderr=terminal, stdout=nowhere, start_new_session=True, env=given
            )
    os.close(terminal)
    output = b""
    try:
        while part := os.read(main, 65536):
            output += part
            if until is not None and until(output.decode(errors="replace")):
                until = None
                os.killpg(running.pid, signal.SIGINT)
    except OSError:  # the other end is closed
        pass
    os.close(main)
    running.wait(60)
    return output.decode()


def plain_lines(output: str) -> list[str]:
    """Return the lines of what was drawn, each as often as it was drawn, without the signs that
    move and colour."""
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r]", "", line) for line in output.split("\n")]
