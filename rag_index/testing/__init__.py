"""Test classes for plug-ins: subclass one in your package's tests, say how to make yours, and run pytest.

Each class states what rag-index relies on. Its own embedders, chunkers and rerankers pass the same tests.
"""

from __future__ import annotations

import math
import pickle
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import ChunkedDocument
from rag_index.errors import RagIndexError
from rag_index.sources import page_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.embedders import Embedder
    from rag_index.rerankers import Reranker

__all__ = ["ChunkerContract", "EmbedderContract", "RerankerContract"]

TEXTS = (
    "The printer on the second floor is out of paper.",
    "A customer cannot log in since Monday: error E-4711.",
    "Der Drucker im zweiten Stock hat kein Papier mehr.",
    "def shards(batch):\n    return batch.split()\n",
    "漢字 かな — emoji \U0001f600, a zero-width\u200bspace, and a \x00 byte",
    "word " * 200,
)
LONG = "\n\n".join(f"Paragraph {n} says that machine {n} of hall {n % 7} has stopped again." for n in range(400))
HALF_A_CHARACTER = "half a character: \ud83d"
SAME = 1e-3
"""How much vectors of one text may differ, relative to their length: GPUs round otherwise in other batches."""


class EmbedderContract(ABC):
    """What an embedder must do."""

    @abstractmethod
    def make_embedder(self) -> Embedder:
        """Return a new embedder, of the same model each time."""

    def test_equal_models_have_one_identity(self) -> None:
        """An index is refused if the fingerprint changes, so it must not change from process to process."""
        with closing(self.make_embedder()) as one, closing(self.make_embedder()) as other:
            _equal(one.identity(), other.identity(), "the identity of the same model")
            _check(one.identity().dimension > 0, f"the dimension is {one.identity().dimension}")
            _check(one.identity().digest, "the digest names the weights: take a hash of the model's files")

    def test_each_text_has_its_own_vector_in_order(self) -> None:
        """A vector is a float32 array of shape (dimension,), finite, not zero, and no matter of its neighbours."""
        with closing(self.make_embedder()) as embedder:
            together = embedder.embed_documents(TEXTS)
            _equal(len(together), len(TEXTS), "the number of vectors")
            for text, entry in zip(TEXTS, together, strict=True):
                vector = _vector(entry, text)
                _equal(vector.dtype, np.dtype(np.float32), f"the type of the vector of {text!r}")
                _equal(vector.shape, (embedder.identity().dimension,), f"the shape of the vector of {text!r}")
                _check(np.isfinite(vector).all() and vector.any(), f"the vector of {text!r} is zero or not finite")
                (alone,) = embedder.embed_documents([text])
                _check_same(vector, alone, text)
            differ = not np.allclose(_vector(together[0], TEXTS[0]), _vector(together[1], TEXTS[1]))
            _check(differ, f"{TEXTS[0]!r} and {TEXTS[1]!r} have one vector")

    def test_queries_together_have_the_vectors_of_single_ones(self) -> None:
        """`embed_queries` is used under load, `embed_query` otherwise."""
        with closing(self.make_embedder()) as embedder:
            for text, vector in zip(TEXTS, embedder.embed_queries(TEXTS), strict=True):
                _check_same(vector, embedder.embed_query(text), text)

    def test_nothing_gives_nothing(self) -> None:
        """A shard may have no text to embed."""
        with closing(self.make_embedder()) as embedder:
            _equal(embedder.embed_documents([]), [], "the vectors of no documents")
            _equal(embedder.embed_queries([]), [], "the vectors of no queries")

    def test_a_bad_text_fails_alone(self) -> None:
        """Its entry is an error of rag_index.errors, or a vector; the others have theirs, and nothing is raised."""
        with closing(self.make_embedder()) as embedder:
            first, *bad, last = embedder.embed_documents([TEXTS[0], HALF_A_CHARACTER, LONG, TEXTS[1]])
            _vector(first, TEXTS[0])
            _vector(last, TEXTS[1])
            for entry in bad:
                _check(isinstance(entry, np.ndarray | RagIndexError), f"{entry!r} is neither vector nor error")

    def test_requests_are_counted(self) -> None:
        """Metrics and the display of progress read `stats`."""
        with closing(self.make_embedder()) as embedder:
            embedder.embed_documents(TEXTS)
            _check(embedder.stats.requests > 0, f"{embedder.stats} has no requests")
            _equal(embedder.stats.in_flight, 0, "the number of requests in flight after the last")


class ChunkerContract(ABC):
    """What a chunker must do."""

    texts: Sequence[str] = (*TEXTS, LONG)

    @abstractmethod
    def make_chunker(self) -> Chunker:
        """Return a new chunker, of the same settings each time."""

    def chunks(self, chunker: Chunker, texts: Sequence[str]) -> list[ChunkedDocument]:
        """Return the chunks of each text, which must have some."""
        found = chunker.chunk(page_of((number, text, {}) for number, text in enumerate(texts)))
        _equal(len(found), len(texts), "the number of documents")
        chunked = [one for one in found if isinstance(one, ChunkedDocument)]
        _equal(chunked, found, "the documents that have chunks")
        return chunked

    def test_equal_settings_have_one_fingerprint(self) -> None:
        """An index is refused if the fingerprint changes; workers get the chunker pickled."""
        chunker = self.make_chunker()
        copy = pickle.loads(pickle.dumps(chunker))  # noqa: S301 - its own
        _equal(self.make_chunker().fingerprint, chunker.fingerprint, "the fingerprint of another one")
        _equal(copy.fingerprint, chunker.fingerprint, "the fingerprint of a pickled one")
        _equal(self.chunks(copy, self.texts), self.chunks(chunker, self.texts), "what a pickled one returns")

    def test_a_document_has_the_same_chunks_whatever_is_chunked_beside_it(self) -> None:
        """A run compares chunks with those of the last run, which had other shards."""
        chunker = self.make_chunker()
        for text, together in zip(self.texts, self.chunks(chunker, self.texts), strict=True):
            _equal(self.chunks(chunker, [text]), [together], "the chunks of a document alone")

    def test_no_word_is_lost_and_no_chunk_is_empty(self) -> None:
        """White space alone has no chunk. Columns are empty or have an entry for each chunk."""
        chunker = self.make_chunker()
        for text, document in zip(self.texts, self.chunks(chunker, self.texts), strict=True):
            _check(all(chunk.strip() for chunk in document.chunks), f"{document.chunks!r} has an empty chunk")
            lost = set(text.replace("\0", " ").split()) - set(" ".join(document.chunks).split())
            _check(not lost, f"no chunk has {sorted(lost)[:3]}")
            for column in (document.contexts, document.payloads):
                _check(not column or len(column) == len(document.chunks), f"{column!r} is not of each chunk")
        _equal(self.chunks(chunker, [" \n\t "])[0].chunks, [], "the chunks of white space")

    def test_a_chunk_is_split_until_it_fits(self) -> None:
        """An embedder may refuse a chunk of any length: it is split until nothing is left to split."""
        chunker = self.make_chunker()
        (document,) = self.chunks(chunker, [LONG])
        for _ in range(50):
            halves = chunker.split_chunk(document, 0)
            if halves is None:
                break
            _equal(len(halves.chunks), len(document.chunks) + 1, "the number of chunks after one is split")
            both, whole = halves.chunks[:2], document.chunks[0]
            _check(all(half.strip() and len(half) < len(whole) for half in both), f"{whole!r} is split into {both!r}")
            document = halves
        rest = document.chunks[0]
        _check(len(rest) < 100 or halves is not None, f"a chunk of {len(rest)} characters is not split: {rest[:40]!r}")


class RerankerContract(ABC):
    """What a reranker must do."""

    @abstractmethod
    def make_reranker(self) -> Reranker:
        """Return a new reranker, of the same model each time."""

    def test_each_text_has_a_finite_number_in_order(self) -> None:
        """The number of a text does not depend on the order of the texts."""
        with closing(self.make_reranker()) as reranker:
            scores = [float(score) for score in reranker.score("printer without paper", TEXTS)]
            _equal(len(scores), len(TEXTS), "the number of scores")
            _check(all(map(math.isfinite, scores)), f"{scores} are not all finite")
            backwards = [float(score) for score in reranker.score("printer without paper", TEXTS[::-1])]
            same = np.allclose(scores, backwards[::-1], atol=SAME)
            _check(same, f"the scores {scores} are {backwards[::-1]} if the texts come in another order")

    def test_no_texts_have_no_numbers_and_any_text_has_one(self) -> None:
        """Hits may be few, and long."""
        with closing(self.make_reranker()) as reranker:
            _equal(list(reranker.score("anything", [])), [], "the scores of no texts")
            _equal(len(reranker.score("", [LONG, "x"])), 2, "the number of scores")


def _check(holds: object, message: str) -> None:
    """Raise AssertionError unless something holds. (`assert` says nothing here: pytest rewrites only its plug-ins.)"""
    if not holds:
        raise AssertionError(message)


def _equal(found: object, expected: object, what: str) -> None:
    _check(found == expected, f"{what}: {found!r} instead of {expected!r}")


def _vector(entry: object, text: str) -> NDArray[np.float32]:
    """Return an entry that is a vector. Raises AssertionError for any other."""
    if not isinstance(entry, np.ndarray):
        raise AssertionError(f"the entry of {text!r} is no vector: {entry!r}")
    return entry


def _check_same(vector: object, other: object, text: str) -> None:
    """Raise AssertionError unless both are one vector but for rounding."""
    one, two = _vector(vector, text), _vector(other, text)
    apart = float(np.linalg.norm(one - two) / np.linalg.norm(two))
    _check(apart <= SAME, f"two vectors of {text!r} are {apart:.3g} apart, relative to their length")
