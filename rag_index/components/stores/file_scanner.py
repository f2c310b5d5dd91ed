"""A scanner of bytes: which files hold something of texts or vectors. It knows no index, and no store. Of each text and
each vector it knows hashes of pieces of 32 bytes, and looks for these at every byte of every file, and of what gzip or
zlib has packed. LZ4 leaves pieces that it met for the first time as they are. A vector has pieces in each encoding; two
are also looked for as bytes of any scale and offset, by their correlation."""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.core.reports.progress import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

PIECE = 32
STEP = 8
"""Bytes between the pieces of a text: whatever leaves 39 bytes of it in a row leaves one of them."""
PLACES_AT_ONCE = 4
"""Pieces of a vector in each encoding."""
SHAPES = 2
"""Vectors that are looked for as bytes of any scale, which takes longest."""
ALIKE = 0.99
BLOCK, MEGABYTE = 1 << 20, 10**6
MULTIPLIER, MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
SIEVE_BITS = 22
PACKED = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda")
ENCODINGS = ("UTF-8", "UTF-16", "gzip, zlib and the literals of LZ4", "float32", "CBOR", "float64", "float16", "int8")


@dataclass(slots=True)
class Scanned:
    """What a scan read, and the pieces that it found in each file: hashes, numbers of shapes, or words. A link is not
    followed, since what it points at may be anywhere: `links` are those to what was not read."""

    files: int = 0
    bytes: int = 0
    found: dict[str, set[Any]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def note_error(self, error: OSError) -> None:
        """Note that a folder or a file cannot be read; one that is deleted meanwhile is none."""
        if not isinstance(error, FileNotFoundError):
            self.unreadable.append(str(error.filename))


class Scanner:
    """What is looked for: nothing of it can be read back."""

    def __init__(self) -> None:
        self.texts = self.vectors = 0
        self._pieces: list[Hashes] = []
        self._words: list[bytes] = []
        self._shapes: list[NDArray[np.float32]] = []

    def add_text(self, text: str) -> bytes:
        """Look for pieces of a text; a text shorter than a piece may be part of other texts. Return the pieces."""
        found = b""
        for encoded in (text.encode("utf-8", "replace"), text.encode("utf-16-le", "replace")):
            found += self.add_pieces(_hashes(encoded)[_telling(encoded, range(0, len(encoded) - PIECE + 1, STEP))])
        self.texts += len(text) >= PIECE
        return found

    def add_pieces(self, pieces: bytes | Hashes) -> bytes:
        """Look for pieces, which are hashes that an earlier call returned, and return them."""
        self._pieces.append(np.frombuffer(pieces, np.uint64) if isinstance(pieces, bytes) else pieces)
        return self._pieces[-1].tobytes()

    def add_words(self, words: str) -> None:
        """Look for these words as they are, in all files."""
        self._words += [words.encode("utf-8", "replace"), words.encode("utf-16-le", "replace")]
        self.texts += 1

    def add_vector(self, vector: Iterable[float]) -> bytes:
        """Look for a vector. Return its pieces."""
        self.vectors += 1
        found = b""
        values = np.asarray(vector, dtype=np.float32)
        for encoded in _encodings(values):
            places = _telling(encoded, range(0, len(encoded) - PIECE + 1, PIECE))
            found += self.add_pieces(_hashes(encoded)[places[:: max(1, len(places) // PLACES_AT_ONCE)]])
        middle = values[max(0, len(values) - PIECE) // 2 :][:PIECE]
        if len(self._shapes) < SHAPES and len(np.unique(middle)) > PIECE // 2:
            middle = middle - middle.mean()
            self._shapes.append(middle / np.linalg.norm(middle))
        return found

    def scan(self, folders: Iterable[Path]) -> Scanned:
        """Read every file below these folders. A file that is deleted meanwhile is none."""
        scanned, wanted = Scanned(), np.unique(np.concatenate([np.zeros(0, np.uint64), *self._pieces]))
        sieve = np.zeros(1 << SIEVE_BITS, dtype=bool)
        sieve[wanted >> np.uint64(64 - SIEVE_BITS)] = True
        folders, paths, links = list(folders), set[Path](), set[Path]()
        for folder in folders:
            for place, inner, names in os.walk(folder, onerror=scanned.note_error):
                below = {Path(place, name).absolute() for name in (*inner, *names)}
                paths |= below
                links |= {path for path in below if path.is_symlink()}
        roots = [folder.resolve() for folder in folders]
        outside = (path for path in links if not any(path.resolve().is_relative_to(root) for root in roots))
        scanned.links += sorted(f"{path}, a link to {path.resolve()}" for path in outside)
        files = sorted(path for path in paths - links if path.is_file())
        for path, _, block in counted(_read(files, scanned), "MB read", partial(_megabytes, files), _size):
            if block and (found := self._find(block, wanted, sieve)):
                scanned.found.setdefault(str(path), set()).update(found)
        return scanned

    def _find(self, block: bytes, wanted: Hashes, sieve: NDArray[np.bool_]) -> set[Any]:
        found: set[Any] = {one for one in self._words if one in block}
        hashes = _hashes(block)
        some = hashes[sieve[hashes >> np.uint64(64 - SIEVE_BITS)]]
        found.update(np.intersect1d(some, wanted).tolist())
        for signed in (0, 128):
            if self._shapes and len(block) >= PIECE:
                values = (np.frombuffer(block, np.uint8) ^ signed).astype(np.float32)
                found.update(n for n, shape in enumerate(self._shapes) if _correlation(values, shape) > ALIKE)
        return found

    def living(self, texts: Iterable[str], vectors: Iterable[Iterable[float]]) -> set[Any]:
        """Return what of these texts and vectors, which are still in use, a scan would find."""
        found: set[Any] = set()
        for text in texts:
            found.update(_hashes(text.encode("utf-8", "replace")).tolist())
        for vector in vectors:
            values = np.asarray(vector, dtype=np.float32)
            found.update(one for encoded in _encodings(values) for one in _hashes(encoded).tolist())
            found.update(n for n, shape in enumerate(self._shapes) if _correlation(values * 1000, shape) > ALIKE)
        return found


def _telling(data: bytes, places: Iterable[int]) -> list[int]:
    """Return those of these places whose piece is not made of a few bytes alone, as half of all files are."""
    return [place for place in places if len(set(data[place : place + PIECE])) >= PIECE // 4]


def _encodings(values: NDArray[np.float32]) -> list[bytes]:
    cbor = np.zeros(len(values), dtype=[("kind", "u1"), ("value", ">f4")])
    cbor["kind"], cbor["value"] = 0xFA, values
    return [values.tobytes(), cbor.tobytes(), values.astype(np.float64).tobytes(), values.astype(np.float16).tobytes()]


def _hashes(data: bytes) -> Hashes:
    """Return the hash of the piece at each byte: a polynomial, made by doubling its length five times."""
    found, power, size = np.frombuffer(data, np.uint8).astype(np.uint64) + np.uint64(1), MULTIPLIER, 1
    with np.errstate(over="ignore"):
        while size < PIECE and len(found):
            found, power, size = found[:-size] * power + found[size:], power * power, 2 * size
        found = (found ^ (found >> np.uint64(32))) * MIXER
    return found[: max(0, len(data) - PIECE + 1)]


def _correlation(values: NDArray[np.float32], shape: NDArray[np.float32]) -> float:
    """Return the best correlation of a shape (mean 0, length 1) with as many values in a row, some of them above 50."""
    if len(values) < PIECE:
        return 0.0
    sums, squares = (np.concatenate([[0.0], np.cumsum(one, dtype=np.float64)]) for one in (values, values**2))
    mean = (sums[PIECE:] - sums[:-PIECE]) / PIECE
    spread = np.sqrt(np.maximum(PIECE, squares[PIECE:] - squares[:-PIECE] - PIECE * mean**2))
    return float(np.max(np.correlate(values, shape, "valid") / spread))


def _megabytes(files: Iterable[Path]) -> int:
    sizes = 0
    for path in files:
        with suppress(OSError):
            sizes += path.stat().st_size
    return sizes // MEGABYTE


def _size(part: tuple[Path, int, bytes]) -> float:
    return part[1] / MEGABYTE


def _read(files: Iterable[Path], scanned: Scanned) -> Iterator[tuple[Path, int, bytes]]:
    """Yield the blocks of these files, each with its file and the bytes that were read for it."""
    for path in files:
        try:
            for read, block in _blocks(path):
                yield path, read, block
            scanned.files, scanned.bytes = scanned.files + 1, scanned.bytes + path.stat().st_size
        except OSError as error:
            scanned.found.pop(str(path), None)
            error.filename = error.filename or path
            scanned.note_error(error)


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file in blocks that overlap, without the zeros at their ends, each with the bytes read; then what is
    packed in it, for which nothing more is read."""
    for unpacks in (False, True):
        with path.open("rb") as file:
            if unpacks and file.peek(2)[:2] not in PACKED:
                return
            unpack, rest = zlib.decompressobj(wbits=47), b""
            while read := file.read(BLOCK):
                size = 0 if unpacks else len(read)
                try:
                    read = unpack.decompress(read) if unpacks else read
                except zlib.error:
                    return
                block = rest + read
                rest = block[-2 * PIECE - STEP :]
                if not np.frombuffer(block, np.uint8).any():  # a store keeps room for what is to come
                    yield size, b""
                    continue
                start = len(block) - len(block.lstrip(b"\0"))
                yield size, block[max(0, start - PIECE) : len(block.rstrip(b"\0")) + PIECE]
