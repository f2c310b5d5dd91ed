"""Estimate the disk and memory of a Qdrant server: sizing.py DOCUMENTS [--dimensions N] [--chunks
N] [--chars N]."""

import argparse

KEPT = {"HNSW": 80, "ids": 29, "payload indexes": 191}
"""Bytes a point that are in memory and on disk. (README.md says how these figures were
measured.)"""
WORDS, PAYLOAD = 602, 691
"""Bytes a point on disk, of a chunk of 363 characters."""
MEASURED_CHARS = 363

parser = argparse.ArgumentParser()
parser.add_argument("documents", type=int)
parser.add_argument("--dimensions", type=int, default=256)
parser.add_argument("--chunks", type=float, default=1.16, help="of a document")
parser.add_argument("--chars", type=float, default=MEASURED_CHARS, help="of a chunk")
asked = parser.parse_args()

points = asked.documents * asked.chunks
texts = (WORDS + PAYLOAD) * asked.chars / MEASURED_CHARS
memory = asked.dimensions + sum(KEPT.values())
disk = 4 * asked.dimensions + memory + texts
gigabytes = points / 1e9
print(f"{points:,.0f} points")
print(
    f"memory: {memory:,.0f} bytes a point, {memory * gigabytes:.1f} GB, and as much again for"
    " caches"
)
print(
    f"disk: {disk:,.0f} bytes a point, {disk * gigabytes:.1f} GB, and as much again while segments"
    " are merged"
)
