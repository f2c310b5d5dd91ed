"""The memory of one process that chunks source code of many languages, quoted in README.md.

    python benchmarks/code_memory.py ROOT [ROOT …]

ROOT are folders of source code. Of each language, the twenty largest files and every fourth of the next ones, up to a
hundred, are chunked in shards as large as those of a run. Printed is the memory beyond that after ten files: the peak,
and at the end. Nothing is embedded.
"""

from __future__ import annotations

import argparse
import resource
from collections import defaultdict
from pathlib import Path

import psutil

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.sources.code import decode_text
from rag_index.components.sources.listing import list_files
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import encode_payload
from rag_index.etl.sharding import MAX_CHARS_OF_CODE

Sized = tuple[int, str, Path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path)
    files: dict[str, list[Sized]] = defaultdict(list)
    for root in parser.parse_args().roots:
        for file in list_files(root, [], []).files:
            if file.size <= 1_000_000:
                files[file.language].append((file.size, file.language, root / file.path))
    chosen: list[Sized] = []
    for _, found in sorted(files.items()):
        found.sort(reverse=True)
        chosen += found[:20] + found[20:400:4]
    middle = sorted(chosen)[len(chosen) // 2 :]
    chunk(middle[:10])
    idle = psutil.Process().memory_info().rss
    shard: list[Sized] = []
    for one in chosen:
        if shard and sum(size for size, _, _ in shard) + one[0] > MAX_CHARS_OF_CODE:
            chunk(shard)
            shard = []
        shard.append(one)
    chunk(shard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - idle
    end = psutil.Process().memory_info().rss - idle
    size = sum(size for size, _, _ in chosen)
    print(f"{len(chosen):,} files of {len(files)} languages, {size / 1e6:.0f} MB: idle {idle / 1e6:.0f} MB")
    print(f"beyond that: {peak / 1e6:.0f} MB at the peak, {end / 1e6:.0f} MB at the end")


def chunk(files: list[Sized]) -> None:
    texts = [decode_text(path.read_bytes()) for _, _, path in files]
    payloads = [encode_payload({"language": language}) for _, language, _ in files]
    hashes = [b""] * len(files)
    CodeChunker(1000, 10.0).chunk(DocumentBatch([str(path) for _, _, path in files], texts, payloads, hashes, hashes))


if __name__ == "__main__":
    main()
