"""C or C++: what a file named `.h` is. Its content decides, and where that is both, the sources beside it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from rag_index.chunking.code.languages import HEADER, language_of

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_CPP = re.compile(
    r"^[ \t]*(?:"
    r"(?:inline[ \t]+)?namespace\b[ \t\w:]*(?:\{|$)"
    r"|template[ \t]*<"
    r"|(?:public|private|protected)\b[ \t]*\w*[ \t]*:"
    r"|class[ \t]+[A-Za-z_][\w \t:()]*(?:[:{;<]|$)"
    r"|using[ \t]+[\w:]+"
    r"|\#[ \t]*include[ \t]*<[a-z_]+>"
    r")"
    r"|\b[A-Za-z_]\w*::~?[A-Za-z_]|\boperator[ \t]*[-+*/%=<>!&|^(\[]|\b(?:static|const|dynamic|reinterpret)_cast[ \t]*<"
    r"|\bvirtual[ \t]+[~\w]|\)[ \t]*(?:const[ \t]*)?(?:noexcept|override)\b|=[ \t]*(?:delete|default)[ \t]*;",
    re.M,
)
_CONDITION = re.compile(r"[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b(.*)")


def header_language(text: str, guess: str) -> str:
    """Return the language of a header: `guess` if its text is C and C++ alike."""
    return "cpp" if _CPP.search(_COMMENT.sub(" ", _without_cpp_blocks(text))) else guess


def _without_cpp_blocks(text: str) -> str:
    """Return a header without what only a C++ compiler sees, as headers of C have it (`#ifdef __cplusplus`)."""
    if "__cplusplus" not in text:
        return text
    kept: list[str] = []
    hidden: list[bool] = []
    for line in text.split("\n"):
        match = _CONDITION.match(line)
        if match is None:
            if not any(hidden):
                kept.append(line)
        elif match[1] in {"if", "ifdef"}:
            hidden.append("__cplusplus" in match[2] and "!" not in match[2])
        elif match[1] == "ifndef":
            hidden.append(False)
        elif hidden and match[1] == "endif":
            hidden.pop()
        elif hidden:
            hidden[-1] = False
    return "\n".join(kept)


class Neighbours:
    """The sources in C and C++ of a tree, by folder."""

    def __init__(self) -> None:
        self._named: dict[str, set[str]] = defaultdict(set)
        """The languages of the sources of each path without suffix."""
        self._in_folder: dict[str, Counter[str]] = defaultdict(Counter)
        self._all: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Add a file of the tree; files in other languages do not count."""
        language = language_of(path)
        if language in {"c", "cpp"} and not path.lower().endswith(HEADER):
            self._named[path.rpartition(".")[0]].add(language)
            self._in_folder[path.rpartition("/")[0]][language] += 1
            self._all[language] += 1

    def guess(self, path: str) -> str:
        """Return the language of the sources nearest to a header: of its name, in its folder, in the tree."""
        named = self._named.get(path.rpartition(".")[0], set())
        if len(named) == 1:
            return next(iter(named))
        counts = self._in_folder.get(path.rpartition("/")[0]) or self._all
        return "cpp" if counts["cpp"] > counts["c"] else "c"
