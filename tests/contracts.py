"""What an embedder and a chunker must do, as test classes for ours and for those of plug-ins."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from rag_index.components.chunking import Chunker
from rag_index.components.embedders import Embedder
from rag_index.components.sources import page_of
from rag_index.core.documents.batches import ChunkedDocument
from rag_index.errors import RagIndexError

TEXTS = (
    "The printer on the second floor is out of paper.",
    "A customer cannot log in since Monday: error E-4711.",
    "Der Drucker im zweiten Stock hat kein Papier mehr.",
    "def shards(batch):\n    return batch.split()\n",
    "漢字 かな — emoji \U0001f600, a zero-width\u200bspace, and a \x00 byte",
    "word " * 200,
)
LONG = "\n\n".join(
    f"Paragraph {n} says that machine {n} of hall {n % 7} has stopped again." for n in range(400)
)
HALF_A_CHARACTER = "half a character: \ud83d"
SAME = 1e-3
"""How much vectors of one text may differ, relative to their length: GPUs round otherwise in other
batches."""


class EmbedderContract(ABC):
    """What an embedder must do."""

    @abstractmethod
    def make_embedder(self) -> Embedder:
        """Return a new embedder, of the same model each time."""

    def test_equal_models_have_one_identity(self) -> None:
        """An index is refused if the fingerprint changes, so it must not change from process to
        process."""
        with closing(self.make_embedder()) as one, closing(self.make_embedder()) as other:
            assert one.identity() == other.identity()
            assert one.identity().dimension > 0
            assert one.identity().digest, (
                "the digest names the weights: take a hash of the model's files"
            )

    def test_each_text_has_its_own_vector_in_order(self) -> None:
        """A vector is a float32 array of shape (dimension,), finite, not zero, and no matter of its
        neighbours."""
        with closing(self.make_embedder()) as embedder:
            together = _vectors(embedder.embed_documents(TEXTS))
            assert together.dtype == np.float32
            assert together.shape == (len(TEXTS), embedder.identity().dimension)
            assert np.isfinite(together).all()
            assert together.any(axis=1).all(), "a vector is zero"
            for text, vector in zip(TEXTS, together, strict=True):
                (alone,) = _vectors(embedder.embed_documents([text]))
                assert _same(vector, alone), (
                    f"the vector of {text!r} depends on the texts beside it"
                )
            assert not np.allclose(together[0], together[1]), (
                f"{TEXTS[0]!r} and {TEXTS[1]!r} have one vector"
            )

    def test_queries_together_have_the_vectors_of_single_ones(self) -> None:
        """`embed_queries` is used under load, `embed_query` otherwise."""
        with closing(self.make_embedder()) as embedder:
            for text, vector in zip(TEXTS, _vectors(embedder.embed_queries(TEXTS)), strict=True):
                assert _same(vector, embedder.embed_query(text)), text

    def test_nothing_gives_nothing(self) -> None:
        """A shard may have no text to embed."""
        with closing(self.make_embedder()) as embedder:
            assert embedder.embed_documents([]) == []
            assert embedder.embed_queries([]) == []

    def test_a_bad_text_fails_alone(self) -> None:
        """Its entry is an error of rag_index.errors, or a vector; the others have theirs, and
        nothing is raised."""
        with closing(self.make_embedder()) as embedder:
            first, *bad, last = embedder.embed_documents(
                [TEXTS[0], HALF_A_CHARACTER, LONG, TEXTS[1]]
            )
            _vectors([first, last])
            for entry in bad:
                assert isinstance(entry, np.ndarray | RagIndexError)

    def test_requests_are_counted(self) -> None:
        """Metrics read `stats`."""
        with closing(self.make_embedder()) as embedder:
            embedder.embed_documents(TEXTS)
            assert embedder.stats.requests > 0


class ChunkerContract(ABC):
    """What a chunker must do."""

    texts: Sequence[str] = (*TEXTS, LONG)

    @abstractmethod
    def make_chunker(self) -> Chunker:
        """Return a new chunker, of the same settings each time."""

    def chunks(self, chunker: Chunker, texts: Sequence[str]) -> list[ChunkedDocument]:
        """Return the chunks of each text, which must have some."""
        found = chunker.chunk(page_of((number, text, {}) for number, text in enumerate(texts)))
        chunked = [one for one in found if isinstance(one, ChunkedDocument)]
        assert chunked == found, "each of these documents has chunks"
        assert len(found) == len(texts)
        return chunked

    def test_equal_settings_have_one_fingerprint(self) -> None:
        """An index is refused if the fingerprint changes; workers get the chunker pickled."""
        chunker = self.make_chunker()
        copy = pickle.loads(pickle.dumps(chunker))
        assert self.make_chunker().fingerprint == copy.fingerprint == chunker.fingerprint
        assert self.chunks(copy, self.texts) == self.chunks(chunker, self.texts)

    def test_a_document_has_the_same_chunks_whatever_is_chunked_beside_it(self) -> None:
        """A run compares chunks with those of the last run, which had other shards."""
        chunker = self.make_chunker()
        for text, together in zip(self.texts, self.chunks(chunker, self.texts), strict=True):
            assert self.chunks(chunker, [text]) == [together]

    def test_no_word_is_lost_and_no_chunk_is_empty(self) -> None:
        """White space alone has no chunk. Columns are empty or have an entry for each chunk."""
        chunker = self.make_chunker()
        for text, document in zip(self.texts, self.chunks(chunker, self.texts), strict=True):
            assert all(chunk.strip() for chunk in document.chunks)
            lost = set(text.replace("\0", " ").split()) - set(" ".join(document.chunks).split())
            assert not lost, f"no chunk has {sorted(lost)[:3]}"
            for column in (document.contexts, document.payloads):
                assert len(column) in (0, len(document.chunks)), f"{column!r} is not of each chunk"
        assert self.chunks(chunker, [" \n\t "])[0].chunks == []

    def test_a_chunk_is_split_until_it_fits(self) -> None:
        """An embedder may refuse a chunk of any length: it is split until nothing is left to
        split."""
        chunker = self.make_chunker()
        (document,) = self.chunks(chunker, [LONG])
        for _ in range(50):
            halves = chunker.split_chunk(document, 0)
            if halves is None:
                break
            assert len(halves.chunks) == len(document.chunks) + 1
            assert all(
                half.strip() and len(half) < len(document.chunks[0]) for half in halves.chunks[:2]
            )
            document = halves
        assert len(document.chunks[0]) < 100 or halves is not None, "a long chunk is not split"


def _vectors(entries: Sequence[object]) -> NDArray[np.float32]:
    """Return entries that are all vectors as a matrix."""
    assert all(isinstance(entry, np.ndarray) for entry in entries), (
        f"not all are vectors: {entries!r}"
    )
    return np.stack([np.asarray(entry) for entry in entries])


def _same(vector: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether both are one vector but for rounding."""
    return bool(np.linalg.norm(vector - other) <= SAME * np.linalg.norm(other))
