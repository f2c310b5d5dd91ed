"""A process's own memory counts what it allocates, and not the files that it maps."""

from __future__ import annotations

import mmap
import subprocess
import sys

import pytest

from rag_index.machine.resources import MemoryWatch

MB = 1_000_000


def test_allocated_memory_is_in_the_peak():
    """In a process of its own: in this one, garbage of other tests may be freed at the same time."""
    code = (
        "from rag_index.machine.resources import MemoryWatch, peak_memory\n"
        "with MemoryWatch({}) as watch:\n"
        "    before = watch.peaks['flow']\n"
        "    block = bytearray(b'x') * 50_000_000\n"
        "print(before, watch.peaks['flow'], peak_memory())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, peak = map(int, ended.stdout.split())
    assert after - before > 45 * MB
    assert peak > 50 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell which memory is shared")
def test_a_mapped_file_is_not_in_the_peak(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(50 * MB))
    with MemoryWatch({}) as watch, path.open("rb") as file:
        before = watch.peaks["flow"]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert sum(mapped[page] for page in range(0, len(mapped), 4096)) == 0
            watch._sample()
    assert watch.peaks["flow"] - before < 20 * MB
