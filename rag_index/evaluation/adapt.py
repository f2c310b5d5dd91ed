"""Adaptation: the local embedder learns which words of a project's documents mean the same.

Its token vectors are trained on pairs of a document's first words, which are its title or its first line, and the rest
of its text; a document without such a line gives a random span of its text. Each is to be closer to its own than to
those of all other documents of a batch, in both directions (InfoNCE, van den Oord et al. 2018), by steps of Adam
(Kingma and Ba 2015) that touch the tokens of the batch alone. Equal documents give equal tables on one machine.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.documents.batches import DocumentBatch, TextLayout
from rag_index.documents.canonical import hash_text
from rag_index.embedders.local import forget_newest, load_table, remove_unused, write_table
from rag_index.errors import SettingsError
from rag_index.evaluation.significance import Estimate, estimate
from rag_index.ledger import Ledger
from rag_index.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from rag_index.settings import Settings

    Tokens = NDArray[np.uint16]
    Matrix = NDArray[np.float32]

MAX_DOCUMENTS, MIN_DOCUMENTS = 60_000, 100
"""Documents to learn from: of more, a sample; of fewer, nothing can be learned."""
TEXT_TOKENS, HEAD_TOKENS, MIN_TOKENS = 160, 32, 8
"""Tokens of a text and of its first words at most, and of a text at least."""
TEXT_CHARS = 2000
"""Characters of a text that are looked at."""
SPAN_TOKENS = (3, 24)
HELD_OUT, HELD_OUT_SHARE = 1000, 10
"""Documents that are left out to measure with: at most so many, and one in ten."""
FIRST = 10
BATCH, MIN_BATCH, BATCHES = 1024, 64, 5
"""Pairs of a batch; of few documents, as many as make five batches, but not fewer than 64."""
EPOCHS, MAX_EPOCHS, STEPS = 4, 16, 100
"""How often each pair is learned: four times, or up to 16 times until there were 100 steps."""
TEMPERATURE = 0.05
RATE, DISTANCE = 0.02, 2.0
"""The first step of Adam, which falls to 0 as a cosine; at most so much that all steps together are the distance."""
DECAY = (0.9, 0.999)
SEED = 1


@dataclass(frozen=True, slots=True)
class HeldOutQuality:
    """How well the first words of documents find their texts, by meaning alone: recall@10 and MRR@10."""

    recall: Estimate
    mrr: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"recall@10": self.recall.to_json(), "MRR@10": self.mrr.to_json()}


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What was learned, and what it gained on documents that were left out. `model` is None if that is nothing."""

    documents: int
    titles: int
    """Documents that gave a title or a first line, and not a span."""
    held_out: int
    before: HeldOutQuality
    after: HeldOutQuality
    gain: Estimate
    """Of MRR@10, document by document."""
    seconds: float
    """Processor time."""
    model: str | None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        more = {name: getattr(self, name).to_json() for name in ("before", "after", "gain")}
        return {**asdict(self), **more, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Pairs:
    """The tokens of documents: their first words, None where a span has to do, and their other text."""

    heads: list[Tokens | None]
    texts: list[Tokens]

    def pair(self, row: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """Return the first words of a document, or a random span of its text, and its other text."""
        head, text = self.heads[row], self.texts[row]
        if head is not None:
            return head, text
        length = min(int(rng.integers(*SPAN_TOKENS, endpoint=True)), len(text) // 2)
        start = int(rng.integers(len(text) - length, endpoint=True))
        return text[start : start + length], np.concatenate([text[:start], text[start + length :]])


def adapt(settings: Settings, names: Sequence[str], say: Callable[[str], None]) -> Adaptation:
    """Train a table on the documents of these indexes (all by default), and write it if chance explains no such gain.

    The next rebuild uses it. Raises SettingsError if the embedder is another one or there are too few documents, what
    sources and the ledger raise, and EmbedderError if the table cannot be written.
    """
    if settings.embedder.kind != "local":
        raise SettingsError(
            f"adapt trains the local embedder, and [embedder] kind is {settings.embedder.kind!r}: remove it, or leave "
            "the model as it is"
        )
    began = time.process_time()
    tokenizer, plain = load_table()
    pairs = _read_pairs(settings, names, tokenizer)
    if len(pairs.texts) < MIN_DOCUMENTS:
        raise SettingsError(
            f"{len(pairs.texts):,} documents have more than some words of text, and adapt needs at least "
            f"{MIN_DOCUMENTS}: name other indexes"
        )
    rows = np.random.default_rng(SEED).permutation(len(pairs.texts))
    count = min(HELD_OUT, len(rows) // HELD_OUT_SHARE)
    held_out, learned = rows[:count], rows[count:]
    table = train(plain, pairs, learned, say)
    before, after = _reciprocal_ranks(plain, pairs, held_out), _reciprocal_ranks(table, pairs, held_out)
    gain = estimate(after - before)
    model = None
    if gain.low > 0:
        _remove_unused(settings)  # first: a rebuild that has just begun may use the one that was the newest
        model = write_table(settings.embedder.tables, table)
    titles = sum(pairs.heads[row] is not None for row in learned)
    old, new = (HeldOutQuality(estimate(np.sign(one)), estimate(one)) for one in (before, after))
    return Adaptation(len(learned), titles, count, old, new, gain, time.process_time() - began, model)


def undo(settings: Settings) -> bool:
    """Let the next rebuild use the model as it comes. Return whether it would have used a table."""
    known = forget_newest(settings.embedder.tables)
    _remove_unused(settings)
    return known


def _remove_unused(settings: Settings) -> None:
    with closing(Ledger(settings.ledger_url)) as ledger:
        remove_unused(settings.embedder.tables, [one.embedder for one in ledger.collections()])


def _read_pairs(settings: Settings, names: Sequence[str], tokenizer: Tokenizer) -> Pairs:
    """Read the documents of the indexes, or a sample by the hashes of their keys if they are too many."""
    pairs, known = Pairs([], []), set[bytes]()
    with ExitStack() as stack:
        sources = [stack.enter_context(closing(open_source(settings, one))) for one in settings.named(names)]
        for source in sources:
            source.check()
        share = MAX_DOCUMENTS / max(1, sum(source.count() for source in sources))
        for source in sources:
            cursor, more = None, True
            while more:
                page = source.page(cursor, settings.source.page_rows)
                cursor, more = page.cursor, page.cursor is not None
                for head, text in _heads_and_texts(page.documents, share):
                    head_hash = hash_text(head)
                    _add(pairs, tokenizer, head, text, repeated=head_hash in known)
                    known.add(head_hash)
    return pairs


def _heads_and_texts(documents: DocumentBatch, share: float) -> Iterator[tuple[str, str]]:
    """Yield the title or first line of each document of a sample, and its text without it."""
    for row, (key, text) in enumerate(zip(documents.keys, documents.texts, strict=True)):
        if int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") < share * 2.0**64:
            title = (
                TextLayout.decode(documents.layouts[row]).title if documents.layouts and documents.layouts[row] else ""
            )
            beginning = text.lstrip()[: 2 * TEXT_CHARS]
            head = title or beginning.partition("\n")[0].strip()
            yield head, beginning.removeprefix(head) if " " not in head else beginning.replace(head, " ")


def _add(pairs: Pairs, tokenizer: Tokenizer, head: str, text: str, *, repeated: bool) -> None:
    """Add a document, unless it is too short. A head that is long or repeated, or that is all of it, belongs to it."""

    def tokens(of: str) -> Tokens:
        valid = of[:TEXT_CHARS].encode("utf-8", "ignore").decode()
        return np.array(tokenizer.encode_batch_fast([valid], add_special_tokens=False)[0].ids, dtype=np.uint16)

    first, rest = tokens(head), tokens(text)
    usable = 0 < len(first) <= HEAD_TOKENS and len(rest) >= MIN_TOKENS and not repeated
    whole = (rest if usable else np.concatenate([first, rest]))[:TEXT_TOKENS]
    if len(whole) >= MIN_TOKENS:
        pairs.heads.append(first if usable else None)
        pairs.texts.append(whole)


def _reciprocal_ranks(table: Matrix, pairs: Pairs, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 / rank of each of these documents for its first words, among the texts of all; 0 beyond the first 10."""
    rng = np.random.default_rng(SEED)
    asked = [pairs.pair(row, rng) for row in rows]
    texts, _ = _units(table, pairs.texts)
    texts[rows], _ = _units(table, [text for _, text in asked])
    queries, _ = _units(table, [head for head, _ in asked])
    scores = (texts @ query for query in queries)
    ranks = np.array([1 + int((one > one[row]).sum()) for row, one in zip(rows, scores, strict=True)])
    return np.where(ranks <= FIRST, 1 / ranks, 0.0)


def train(plain: Matrix, pairs: Pairs, rows: NDArray[np.int64], say: Callable[[str], None]) -> Matrix:
    """Return a table of token vectors, shape (tokens, dimension), trained from a plain one on these documents."""
    rng = np.random.default_rng(SEED)
    table = np.array(plain, dtype=np.float32)
    means, squares = np.zeros_like(table), np.zeros_like(table)  # the moments of Adam
    batch = min(BATCH, max(MIN_BATCH, len(rows) // BATCHES))
    batches = max(1, len(rows) // batch)
    epochs = min(MAX_EPOCHS, max(EPOCHS, math.ceil(STEPS / batches)))
    steps = epochs * batches
    for epoch in range(epochs):
        order = rng.permutation(rows)
        for number in range(batches):
            step = epoch * batches + number
            rate = min(RATE, DISTANCE / steps) * (1 + math.cos(math.pi * step / steps)) / 2
            chosen = [pairs.pair(row, rng) for row in order[number * batch : (number + 1) * batch]]
            tokens, gradient = _gradient(table, [head for head, _ in chosen], [text for _, text in chosen])
            mean = means[tokens] * np.float32(DECAY[0]) + gradient * np.float32(1 - DECAY[0])
            square = squares[tokens] * np.float32(DECAY[1]) + gradient * gradient * np.float32(1 - DECAY[1])
            means[tokens], squares[tokens] = mean, square
            scale = np.sqrt(square / np.float32(1 - DECAY[1] ** (step + 1))) + np.float32(1e-8)
            table[tokens] -= np.float32(rate / (1 - DECAY[0] ** (step + 1))) * mean / scale
        if (epoch + 1) % (epochs // EPOCHS) == 0:
            say(f"{epoch + 1} of {epochs} rounds")
    return table


def _units(table: Matrix, texts: Sequence[Tokens]) -> tuple[Matrix, Matrix]:
    """Return the unit vector of each text and the length of the sum of its token vectors, as the embedder does."""
    sums = np.empty((len(texts), table.shape[1]), dtype=np.float32)
    for row, tokens in enumerate(texts):
        np.add.reduce(table.take(tokens, axis=0), axis=0, out=sums[row])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True) + np.float32(1e-9)
    return sums / lengths, lengths


def _gradient(table: Matrix, heads: Sequence[Tokens], texts: Sequence[Tokens]) -> tuple[NDArray[np.int64], Matrix]:
    """Return the tokens of a batch, and the gradient of the loss by the vector of each."""
    (one, one_length), (other, other_length) = _units(table, heads), _units(table, texts)
    scores = np.exp((one @ other.T - 1) / TEMPERATURE)  # at most 1, since no cosine is more
    wrong = scores / scores.sum(axis=1, keepdims=True) + scores / scores.sum(axis=0, keepdims=True)
    np.fill_diagonal(wrong, wrong.diagonal() - 2)
    wrong /= 2 * len(heads) * TEMPERATURE
    by_one, by_other = wrong @ other, wrong.T @ one
    by_one = (by_one - one * (one * by_one).sum(axis=1, keepdims=True)) / one_length
    by_other = (by_other - other * (other * by_other).sum(axis=1, keepdims=True)) / other_length
    gradients, both = np.concatenate([by_one, by_other]), [*heads, *texts]
    tokens = np.concatenate(both).astype(np.int64)
    of_text = np.repeat(np.arange(len(both)), [len(text) for text in both])
    order = np.argsort(tokens, kind="stable")
    tokens, of_text = tokens[order], of_text[order]
    starts = np.flatnonzero(np.diff(tokens, prepend=-1))
    summed = np.empty((len(starts), gradients.shape[1]), dtype=np.float32)
    for row, (start, end) in enumerate(zip(starts, [*starts[1:], len(tokens)], strict=True)):
        np.add.reduce(gradients.take(of_text[start:end], axis=0), axis=0, out=summed[row])
    return tokens[starts], summed
