"""The symbols of a file in each language: their kinds, names, signatures, docstrings and lines."""

import ast
import contextlib
import math
import time
from pathlib import Path

import pytest

from rag_index.components.chunking.code.symbols import CODE_LANGUAGES, open_grammar, parse, symbols_of
from rag_index.errors import TerminalError
from tests.components.chunking.code.samples import SAMPLES, SYMBOLS


@pytest.mark.parametrize("language", SYMBOLS)
def test_symbols_have_signatures_docstrings_and_lines(language: str) -> None:
    found = symbols_of(SAMPLES[language].encode(), language, seconds=10)
    assert [(s.kind, s.qualified_name, s.signature, s.docstring, s.line) for s in found] == SYMBOLS[language]


def test_parents_and_ends() -> None:
    found = {s.qualified_name: s for s in symbols_of(SAMPLES["python"].encode(), "python", seconds=10)}
    assert (found["Größe.Inner.deep"].parent, found["Größe.Inner.deep"].name) == ("Größe.Inner", "deep")
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
    expected = {
        (node.name, node.lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    found = symbols_of(source, "python", seconds=10)
    assert {(s.name, s.line) for s in found if s.kind != "constant"} == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "".join(" " * level + f"def f{level}():\n" for level in range(300)) + " " * 300 + "pass\n"),
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
    """The limit bounds all that is done with a file. Processor time is measured: other work changes nothing in it."""
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
    found = {one.qualified_name for one in symbols_of(text, "python", seconds=10)}
    assert {"A", "A.one", "last"} <= found
