"""What the benchmarks of searches print: a line, percentiles, and the memory of the process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def line(what: str, *values: str) -> None:
    print(f"  {what:<58}{'  '.join(values)}")


def percentiles(seconds: Sequence[float]) -> list[str]:
    return [f"p{q} {1000 * np.percentile(seconds, q):.1f} ms" for q in (50, 95, 99)]


def memory() -> dict[str, float]:
    """Return the MB of this process: private (RssAnon), and with the mapped files of the store
    (VmRSS)."""
    status = Path("/proc/self/status").read_text()
    return {
        key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("RssAnon", "VmRSS")
    }
