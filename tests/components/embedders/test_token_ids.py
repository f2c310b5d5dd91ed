"""The dimensions of words that an index already has: no change of how words are found may change
them."""

from hashlib import blake2b
from pathlib import Path

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model

RECORDED = Path(__file__).with_name("token_ids.txt")
"""A word a line, with a hash of its dimensions. They are English words, names with signs, words of
thirty languages in Latin, Greek and Cyrillic letters, and each of these letters between two
others."""
MODELS = (
    Bm25Model("none"),
    Bm25Model("english"),
    Bm25Model("german"),
    Bm25Model("greek"),
    Bm25Model("russian"),
    Bm25Model("none", identifiers=True),
)


def digest(word: str, encoders: list[Bm25Encoder]) -> str:
    """Hash the dimensions that a word has in a query, and in a text, with each of the encoders."""
    hashed = blake2b(digest_size=5)
    for encoder in encoders:
        query = encoder.query(word)
        asked = sorted(zip(map(int, query.indices), map(float, query.values), strict=True))
        stored = sorted(map(int, encoder.documents([word]).row(0).indices))
        hashed.update(repr((asked, stored)).encode())
    return hashed.hexdigest()


def test_words_of_latin_greek_and_cyrillic_letters_keep_their_dimensions() -> None:
    encoders = [Bm25Encoder(model) for model in MODELS]
    lines = RECORDED.read_text(encoding="utf-8").splitlines()
    recorded = dict(line.split("\t") for line in lines)
    assert len(recorded) > 3000
    changed = [word for word, known in recorded.items() if digest(word, encoders) != known]
    assert not changed
