"""Chunks of source code: no character is lost or repeated, and lines are numbered as an editor numbers them."""

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.code.symbols import CODE_LANGUAGES
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload, hash_bytes, hash_text
from rag_index.core.documents.keys import encode_key
from tests.components.chunking.code.samples import SAMPLES

CHUNKER = CodeChunker(chars=120, seconds=20.0)


def page(text: str, language: str) -> DocumentBatch:
    payload = encode_payload({"path": "a", "language": language})
    return DocumentBatch([encode_key(["a"])], [text], [payload], [hash_text(text)], [hash_bytes(payload)])


def document(text: str, language: str, chunker: CodeChunker = CHUNKER) -> ChunkedDocument:
    (one,) = chunker.chunk(page(text, language))
    assert isinstance(one, ChunkedDocument), one
    return one


def lines(one: ChunkedDocument) -> list[tuple[int, int]]:
    return [tuple(decode_payload(payload)["lines"]) for payload in one.payloads]


def assert_whole(text: str, one: ChunkedDocument) -> None:
    """Assert that the chunks are the whole text, in order and once, and that each is on its `lines`."""
    assert "".join(one.chunks) == text
    numbered = text.split("\n")
    for chunk, (first, last) in zip(one.chunks, lines(one), strict=True):
        assert chunk.strip() in "\n".join(numbered[first - 1 : last])
        assert last - first == chunk.strip().count("\n")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(CODE_LANGUAGES)),
    st.integers(0, 2**32),
    st.lists(st.text(alphabet="{}()<>\"'`#/*\\:;=\n\r\t é\u2028\U0001f600x", max_size=12), max_size=6),
    st.integers(20, 300),
)
@example("python", 1, ["'''", "\\\n"], 40)
def test_chunks_of_damaged_files_join_to_the_file(language: str, seed: int, noise: list[str], chars: int) -> None:
    """Syntax errors of any kind: the lines of a sample in another order, with random signs between them."""
    chance = random.Random(seed)
    parts = SAMPLES[language].split("\n")
    chance.shuffle(parts)
    for sign in noise:
        parts.insert(chance.randrange(len(parts) + 1), sign)
    text = chance.choice(["\n", "\r\n", " "]).join(parts)
    one = document(text, language, CodeChunker(chars=chars, seconds=20.0))
    assert_whole(text, one)
    assert max(len(chunk.strip()) for chunk in one.chunks) <= chars + 2 * 100


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="ab \n\r\té\u0301\U0001f1e9", min_size=1, max_size=400), st.integers(20, 60), st.data())
def test_splitting_a_chunk_loses_nothing(text: str, chars: int, data: st.DataObject) -> None:
    one = document(text, "text", CodeChunker(chars=chars, seconds=1.0))
    if not one.chunks:
        assert not text.strip()
        return
    number = data.draw(st.integers(0, len(one.chunks) - 1))
    shorter = CHUNKER.split_chunk(one, number)
    if shorter is None:
        assert len(one.chunks[number].strip()) < 2
        return
    assert len(shorter.chunks) == len(one.chunks) + 1
    assert all(chunk.strip() for chunk in shorter.chunks)
    assert_whole(text, shorter)


def test_a_large_symbol_is_split_at_its_inner_symbols() -> None:
    body = "\n".join(f"    def method_{n}(self):\n        return {n} * {n}\n" for n in range(4))
    text = f'import os\n\n\nclass Large:\n    """Many."""\n\n    size = 1\n\n{body}\n'
    one = document(text, "python")
    assert_whole(text, one)
    payloads = [decode_payload(payload) for payload in one.payloads]
    assert [(each["kind"], each.get("qualified_name", "")) for each in payloads] == [
        ("text", ""), ("class", "Large"),
        *(("method", f"Large.method_{n}") for n in range(4)),
    ]  # fmt: skip
    assert payloads[2]["lines"] == [9, 10]
    assert payloads[2]["parent"] == "Large"


def test_a_large_function_is_split_at_lines_and_a_long_line_inside() -> None:
    text = "def f():\n" + "".join(f"    call_{n}()\n" for n in range(30)) + "    x = '" + "ab " * 200 + "'\n"
    one = document(text, "python")
    assert_whole(text, one)
    assert {decode_payload(payload)["name"] for payload in one.payloads} == {"f"}
    assert max(map(len, one.chunks)) <= 120 + 2
    assert [chunk.endswith("\n") for chunk in one.chunks[:3]] == [True, True, True]
