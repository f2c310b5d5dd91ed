"""No pattern of the product takes the square of the time for a text that somebody else wrote."""

import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import rag_index
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.sources.text import read_text

OWN = re.compile(
    r"rag_index\.(?:cli|core\.settings|first_run|search\.frameworks|search\.evaluation\.measures"
    r"|watch\.changes\.watched_tables|care\.effective_settings)\b"
)
"""Rooms whose patterns read what the user or the project wrote, or the first 1,500 characters of a value."""
BOUNDED = {
    "_GENERATED", "_COMMENT", "_MARKERS", "_ATTRIBUTE", "_OPENING",  # 2,000 characters at most
    "TOO_LONG", "TOO_MANY", "NO_MODEL", "CRASHED", "STRICT_MODE", "_SECRET_VALUE", "_PART",  # of an error or a path
    "_LIKE_NAME",  # the first characters of a word
    "_ELEMENTS", "_THINKING",  # only of a text that fits as a whole
}  # fmt: skip
ANCHORED = {
    "PERMITS", "PLACE", "RESTRICTS", "_CODE", "_EMAIL", "_JSON", "_LANGUAGES", "_MAIL", "_NAME_OF_PROGRAMS",
    "_OPAQUE", "_OPENED",
}  # fmt: skip
"""Patterns that functions are given which only look whether they fit from the beginning."""
LONGEST = 100_000
"""Characters. What takes the square of the time shows it at a quarter of that."""


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for found in pkgutil.walk_packages(rag_index.__path__, "rag_index."):
        if found.name.endswith("__main__") or OWN.match(found.name):
            continue
        for name, value in sorted(vars(importlib.import_module(found.name)).items()):
            for number, one in enumerate(value if isinstance(value, tuple) else [value]):
                if isinstance(one, re.Pattern) and name not in BOUNDED:
                    yield f"{found.name}.{name}.{number}", one


def sample(tree: Any) -> list[str]:
    """Return texts that a parsed pattern takes, one for each of its first branches."""
    texts = [""]
    for kind, value in tree:
        more = [""]
        if kind is _parser.LITERAL:
            more = [chr(value)]
        elif kind is _parser.IN:
            more = [next((chr(one) for name, one in value if name is _parser.LITERAL), "a")]
        elif kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT, _parser.POSSESSIVE_REPEAT):
            more = sample(value[2])[:3]
        elif kind is _parser.BRANCH:
            more = [text for branch in value[1] for text in sample(branch)[:2]]
        elif kind in (_parser.SUBPATTERN, _parser.ATOMIC_GROUP):
            more = sample(value[-1] if kind is _parser.SUBPATTERN else value)
        elif kind in (_parser.ANY, _parser.NOT_LITERAL):
            more = ["a"]
        texts = [text + one for text in texts for one in more][:60]
    return texts


def seconds(work: Callable[[str], object], unit: str, length: int) -> float:
    text = unit * (length // len(unit))
    began = time.process_time()
    work(text)
    return time.process_time() - began


def check_linear(work: Callable[[str], object], unit: str, most: int) -> None:
    """Check that four times the text takes less than eight times the time, at the first length that takes some time."""
    for length in (most // 128, most // 32, most // 16, most // 4):
        if seconds(work, unit, length) > 0.02:
            assert is_linear(work, unit, length), (unit, length)
            return


def is_linear(work: Callable[[str], object], unit: str, length: int) -> bool:
    """Return whether one of three tries shows it: a busy machine makes measurements too long, and none too short."""
    return any(seconds(work, unit, 4 * length) < 8 * seconds(work, unit, length) for _ in range(3))


def test_each_pattern_takes_linear_time_for_what_it_almost_fits():
    for name, pattern in patterns():
        check_almost_fits(name, pattern)


def check_almost_fits(name: str, pattern: re.Pattern[Any]) -> None:
    is_bytes, (module, own) = isinstance(pattern.pattern, bytes), name.rsplit(".", 2)[:2]
    source = inspect.getsource(importlib.import_module(module))
    is_searched = re.search(rf"\b{own}\.(?:sub|search|findall|finditer|split)\(", source)
    is_anchored = own in ANCHORED or (not is_searched and re.search(rf"\b{own}\.(?:full)?match\(", source))
    whole = sample(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if is_bytes else pattern.flags))
    units = {text[:end] for text in whole for end in range(1, min(len(text), 12) + 1)} | {" ", "\n", "a", "("}
    units |= {text[:-1] + text[-2:-1] * 5 for text in whole if len(text) > 1}

    def work(text: str) -> None:
        given: Any = text.encode() if is_bytes else text
        pattern.fullmatch(given)
        pattern.match(given) if is_anchored else pattern.sub(given[:0], given)

    for unit in sorted(units):
        if seconds(work, unit, 4000) > 0.004:
            assert is_linear(work, unit, 4000), (name, unit)


UNITS = [" ", "&nbsp;", "[a_b", "[url=", "[b]", "<a ", "<a b='", "<!--", "\n ", "*", "`", "<s>", "[code]"]


@pytest.mark.parametrize(
    "form", ["html", "auto", *(pytest.param(form, marks=pytest.mark.long) for form in ("bbcode", "markdown"))]
)
@pytest.mark.parametrize("unit", UNITS)
def test_a_long_text_of_anything_is_read_and_split_in_linear_time(form, unit):
    chunker = TextChunker(1000, 100)
    check_linear(lambda text: chunker.split(read_text(f"x{text}<pre>x{text}x</pre>", form)), unit, LONGEST)
