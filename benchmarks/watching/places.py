"""How benchmarks start a watch."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psutil

from tests.project import PROGRAM

if TYPE_CHECKING:
    from tests.reliability.chaos.desk import Desk

__all__ = ["Command"]


class Command:
    """`rag-index watch`."""

    def __init__(self, desk: Desk) -> None:
        self.log = desk.folder / "watch.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*PROGRAM, "--config", str(desk.config), "watch"], stdout=log, stderr=log)
        self.process = psutil.Process(self._process.pid)

    def end(self) -> None:
        """End the watch after its batch."""
        self._process.terminate()
        self._process.wait(timeout=60)
