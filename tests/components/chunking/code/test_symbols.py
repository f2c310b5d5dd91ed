"""Source code: the symbols of a file in each language, and chunks that join to the file again."""

import ast
import contextlib
import math
import random
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.code.languages import CODE_LANGUAGES, language_of, open_grammar
from rag_index.components.chunking.code.symbols import parse, symbols_of
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload, hash_bytes, hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.errors import TerminalError
from tests.components.chunking.code.samples import SAMPLES, SYMBOLS

CHUNKER = CodeChunker(chars=120, seconds=20.0)
CASES = [
    (
        "ruby",
        "module A::B\n  class C; end\nend\nclass ::D; end\n",
        "module A::B, class A::B::C, class D",
    ),
    ("ruby", "LIMIT = 3\ndef f\n  y = 2\nend\n", "constant LIMIT, method f"),
    (
        "ruby",
        "class A < B\n  alias b c\n  def self.all(size: 3) = []\nend\n",
        "class A, method A::b, method A::all",
    ),
    (
        "cpp",
        "template <> struct hash<Key> {\n  int operator()(Key k) const;\n};\n",
        "class hash, method hash::operator()",
    ),
    ("cpp", "template <> void Map<int>::put(int k) {}\n", "method Map::put"),
    ("cpp", "template <class T> ns::Map<T>::Map() {}\n", "method ns::Map::Map"),
    ("cpp", "bool A::operator<(const A& a) const { return true; }\n", "method A::operator<"),
    ("cpp", "struct A {\n  ~A();\n  enum class E { x };\n};\n", "class A, method A::~A, type A::E"),
    ("cpp", "namespace a::b { enum class E : int { x }; }\n", "module a::b, type a::b::E"),
    ("cpp", "void f() {\n  std::lock_guard<M> lock(mutex_);\n  int g(int);\n}\n", "function f"),
    ("cpp", "namespace a {\n#define LIMIT 3\n}\n", "module a, macro LIMIT"),
    (
        "cpp",
        "struct stat buffer{};\nclass Later;\nenum E e;\nvoid g(int (*f)(int), int h(int));\n",
        "function g",
    ),
    (
        "cpp",
        "struct A {\n  A() : a_(1) {}\n#ifdef X\n  void f();\n#else\n  void g();\n#endif\n};\n",
        "class A, method A::A, method A::f, method A::g",
    ),
    ("c", "typedef struct { int a; } T;\n", "type T"),
    ("c", "typedef struct tag { int a; } T;\n", "type T, class tag"),
    ("c", "union U { int a; } u;\nunion U v;\n", "class U"),
    (
        "c",
        "#ifndef A_H\n#define A_H\n#define LIMIT 3\n#define TWICE(x) (x + x)\n#endif\n",
        "macro LIMIT, macro TWICE",
    ),
    ("c", "int f(void), *g(void);\nint (*pointer)(int);\n", "function f, function g"),
    (
        "javascript",
        "class A { constructor() {} static go(x) { return 1 } x = 1 }\n",
        "class A, method A.constructor, method A.go",
    ),
    (
        "javascript",
        "const a = () => 1, b = function () {};\nvar c = () => { let d = 1; };\n",
        "function a, function b, function c",
    ),
    (
        "javascript",
        "exports.all = function () {};\nconst o = { go: () => 1 };\n",
        "function all, function go",
    ),
    (
        "go",
        (
            "package p\n\ntype (\n\tID = string\n\tUser struct { n int }\n\tF func(int)\n)\n\nfunc"
            " (u User) Name() {}\n"
        ),
        "type ID, type User, type F, method User.Name",
    ),
    (
        "go",
        "package p\n\nfunc (q *Queue[K, V]) Push(k K) {}\n\nfunc (Queue[T]) Pop() {}\n",
        "method Queue.Push, method Queue.Pop",
    ),
    ("go", "package a\n\ntype A = B\n\ntype C interface{ D() }\n", "type A, type C, method C.D"),
    (
        "python",
        "LIMIT = 3\n\nclass A:\n    def f(self):\n        X = 1\n",
        "constant LIMIT, class A, method A.f",
    ),
    (
        "typescript",
        (
            "interface A { b(c: number): void }\nenum D { E }\nexport abstract class F<T> {}\ntype"
            " G = A;\n"
        ),
        "interface A, method A.b, enum D, class F, type G",
    ),
    ("tsx", "export const A = ({ on }: B) => <button onClick={on}>Press</button>;\n", "function A"),
    (
        "rust",
        "trait A { fn f(&self); }\nenum B { C }\nmod d { fn e() {} }\n",
        "interface A, method A::f, class B, module d, function d::e",
    ),
    (
        "rust",
        "impl<'a> fmt::Display for &'a B<'a> { fn h() {} }\n",
        "implementation B, method B::h",
    ),
    (
        "java",
        "enum A { X }\nrecord B(int c) {}\nclass D { D() {} void e() {} }\n",
        "enum A, class B, class D, method D.D, method D.e",
    ),
]


@pytest.mark.parametrize("language", SYMBOLS)
def test_symbols_have_signatures_docstrings_and_lines(language: str) -> None:
    found = symbols_of(SAMPLES[language].encode(), language, seconds=10)
    assert [(s.kind, s.qualified_name, s.signature, s.docstring, s.line) for s in found] == SYMBOLS[
        language
    ]


def test_parents_and_ends() -> None:
    found = {
        s.qualified_name: s for s in symbols_of(SAMPLES["python"].encode(), "python", seconds=10)
    }
    assert (found["Größe.Inner.deep"].parent, found["Größe.Inner.deep"].name) == (
        "Größe.Inner",
        "deep",
    )
    assert found["retry"].line == 9
    whole = SAMPLES["python"].encode()[found["retry"].start : found["retry"].end]
    assert whole.startswith(b"# How often.\n# And how long.\n@policy")


def test_a_file_that_takes_too_long_fails_and_the_next_one_is_parsed() -> None:
    large = ("x = [" * 3000 + "def f(: {\n" * 3000).encode()
    with pytest.raises(TerminalError, match=r"could not be parsed in 0\.05 s; exclude it"):
        symbols_of(large, "python", seconds=0.05)
    assert [s.name for s in symbols_of(b"def f(): pass", "python", seconds=10)] == ["f"]


def test_symbols_agree_with_ast() -> None:
    source = Path(ast.__file__).read_bytes()
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    expected = {
        (node.name, node.lineno) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)
    }
    assert {
        (s.name, s.line) for s in symbols_of(source, "python", seconds=10) if s.kind != "constant"
    } == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (
            "python",
            "".join(" " * level + f"def f{level}():\n" for level in range(300))
            + " " * 300
            + "pass\n",
        ),
        ("python", "x = [" * 60_000 + "def f(: {\n" * 60_000),
        ("python", "@a\n" * 300_000 + "def f(): pass\n"),
        ("javascript", "{" * 100_000 + "//\n" * 100_000),
        ("javascript", "var " + ",".join(f"a{n}=function(){{}}" for n in range(40_000))),
        ("javascript", "a.b=" * 200_000 + "function(){}"),
        ("cpp", "(*" * 300_000),
        ("cpp", "A(" * 100_000 + "\n" + "AAA\n" * 40_000),
        ("c", "int " + "*" * 500_000 + "f(void);"),
        ("c", "/" * 500_000 + "\nint f(void);\n" + "/*" * 200_000 + "\nint g(void);\n"),
        ("c", "#if A\n" + "#elif B\nint f(void);\n" * 30_000),
    ],
    ids=lambda value: value[:12] if value not in CODE_LANGUAGES else value,
)
def test_no_file_takes_longer_than_its_limit(language: str, text: str) -> None:
    """The limit bounds all that is done with a file. Processor time is measured: other work changes
    nothing in it."""
    begun = time.process_time()
    with contextlib.suppress(TerminalError):
        symbols_of(text[:1_000_000].encode(), language, seconds=0.3)
    assert time.process_time() - begun < 5


def test_what_the_parser_reads_in_parts_is_the_file() -> None:
    """Characters of several bytes lie across the ends of what the parser is given at a time."""
    for shift in range(8):
        text = ("#" * shift + "\n" + "größer = 'ä€😀'\n" * 400).encode()
        tree = open_grammar("python").parser.parse(text)
        assert str(parse(text, CODE_LANGUAGES["python"], math.inf).root_node) == str(tree.root_node)
        assert len(symbols_of(text, "python", seconds=20)) == 400


def test_a_syntax_error_costs_the_symbols_around_it_alone() -> None:
    text = b"class A:\n    def one(self): pass\n\n    def two(self: pass\n\ndef last():\n    pass\n"
    assert {"A", "A.one", "last"} <= {
        one.qualified_name for one in symbols_of(text, "python", seconds=10)
    }


@pytest.mark.parametrize(("language", "text", "expected"), CASES)
def test_names(language: str, text: str, expected: str) -> None:
    found = symbols_of(text.encode(), language, seconds=10)
    assert ", ".join(f"{one.kind} {one.qualified_name}" for one in found) == expected


def test_languages_by_name() -> None:
    names = {
        "a/b.py": "python",
        "x.TSX": "tsx",
        "x.mjs": "javascript",
        "a.h": "c",
        "a.C": "c",
        "README.md": "text",
    }
    assert {name: language_of(name) for name in names} == names


def document(text: str, language: str, chunker: CodeChunker = CHUNKER) -> ChunkedDocument:
    payload = encode_payload({"path": "a", "language": language})
    page = DocumentBatch(
        [encode_key(["a"])], [text], [payload], [hash_text(text)], [hash_bytes(payload)]
    )
    (one,) = chunker.chunk(page)
    assert isinstance(one, ChunkedDocument), one
    return one


def lines(one: ChunkedDocument) -> list[tuple[int, int]]:
    return [tuple(decode_payload(payload)["lines"]) for payload in one.payloads]


def assert_whole(text: str, one: ChunkedDocument) -> None:
    """Assert that the chunks are the whole text, in order and once, and that each is on its
    `lines`."""
    assert "".join(one.chunks) == text
    numbered = text.split("\n")
    for chunk, (first, last) in zip(one.chunks, lines(one), strict=True):
        assert chunk.strip() in "\n".join(numbered[first - 1 : last])
        assert last - first == chunk.strip().count("\n")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(CODE_LANGUAGES)),
    st.integers(0, 2**32),
    st.lists(
        st.text(alphabet="{}()<>\"'`#/*\\:;=\n\r\t é\u2028\U0001f600x", max_size=12), max_size=6
    ),
    st.integers(20, 300),
)
@example("python", 1, ["'''", "\\\n"], 40)
def test_chunks_of_damaged_files_join_to_the_file(
    language: str, seed: int, noise: list[str], chars: int
) -> None:
    """Syntax errors of any kind: the lines of a sample in another order, with random signs between
    them."""
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
@given(
    st.text(alphabet="ab \n\r\té\u0301\U0001f1e9", min_size=1, max_size=400),
    st.integers(20, 60),
    st.data(),
)
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
    found = [(each["kind"], each.get("qualified_name", "")) for each in payloads]
    assert found == [
        ("text", ""),
        ("class", "Large"),
        *(("method", f"Large.method_{n}") for n in range(4)),
    ]
    assert (payloads[2]["lines"], payloads[2]["parent"]) == ([9, 10], "Large")


def test_a_large_function_is_split_at_lines_and_a_long_line_inside() -> None:
    text = (
        "def f():\n"
        + "".join(f"    call_{n}()\n" for n in range(30))
        + "    x = '"
        + "ab " * 200
        + "'\n"
    )
    one = document(text, "python")
    assert_whole(text, one)
    assert {decode_payload(payload)["name"] for payload in one.payloads} == {"f"}
    assert max(map(len, one.chunks)) <= 120 + 2
    assert [chunk.endswith("\n") for chunk in one.chunks[:3]] == [True, True, True]
