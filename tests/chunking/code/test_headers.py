"""Headers: C or C++, by their content, and by the sources beside them."""

from __future__ import annotations

import pytest

from rag_index.chunking.code.headers import Neighbours, header_language

C_HEADER = """\
/* A class of things: template<int> and std::string are only mentioned here. */
#ifndef A_H
#define A_H
#include <stdio.h>
#ifdef __cplusplus
#include <string>
extern "C" {
#endif
struct thing { int class; int private; };  // namespace a {
int find(struct thing *new, const char *template);
#ifdef __cplusplus
}
namespace lib { class Thing; }
#endif
#endif
"""


@pytest.mark.parametrize(
    "line",
    [
        "namespace a {", "namespace a::b\n{", "  template <typename T>", " public:", "class Name;",
        "class EXPORT Name : B {", "using Base::f;", "#include <vector>",
        "int a::f();", "bool operator==(int);", "virtual void f() = 0;",
        "  void f() const noexcept;", "A(const A&) = delete;",
    ],
)  # fmt: skip
def test_content_decides(line: str) -> None:
    assert header_language(C_HEADER, "c") == "c"
    assert header_language(f"int f(void);\n{line}\n", "c") == "cpp"


def test_what_is_both_is_as_the_sources_beside_it() -> None:
    assert header_language("#define LIMIT 3\nint f(void);\n", "cpp") == "cpp"
    tree = Neighbours()
    for path in ("a/x.c", "a/y.cc", "b/z.cpp", "b/w.cpp", "c/u.c", "b/README.md"):
        tree.add(path)
    guesses = {"a/x.h": "c", "a/y.h": "cpp", "a/v.h": "c", "b/v.h": "cpp", "c/v.h": "c", "include/v.h": "cpp"}
    assert {path: tree.guess(path) for path in guesses} == guesses
    assert Neighbours().guess("v.h") == "c"
