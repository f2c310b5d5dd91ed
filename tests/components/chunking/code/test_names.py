"""The names that symbols get, and what is a symbol at all, where grammars alone would have it otherwise."""

import pytest

from rag_index.components.chunking.code.symbols import language_of, symbols_of

CASES = [
    ("ruby", "module A::B\n  class C; end\nend\nclass ::D; end\n", "module A::B, class A::B::C, class D"),
    ("ruby", "LIMIT = 3\ndef f\n  y = 2\nend\n", "constant LIMIT, method f"),
    ("ruby", "class A < B\n  alias b c\n  def self.all(size: 3) = []\nend\n", "class A, method A::b, method A::all"),
    ("cpp", "template <> struct hash<Key> {\n  int operator()(Key k) const;\n};\n",
     "class hash, method hash::operator()"),
    ("cpp", "template <> void Map<int>::put(int k) {}\n", "method Map::put"),
    ("cpp", "template <class T> ns::Map<T>::Map() {}\n", "method ns::Map::Map"),
    ("cpp", "bool A::operator<(const A& a) const { return true; }\n", "method A::operator<"),
    ("cpp", "struct A {\n  ~A();\n  enum class E { x };\n};\n", "class A, method A::~A, type A::E"),
    ("cpp", "namespace a::b { enum class E : int { x }; }\n", "module a::b, type a::b::E"),
    ("cpp", "void f() {\n  std::lock_guard<M> lock(mutex_);\n  int g(int);\n}\n", "function f"),
    ("cpp", "namespace a {\n#define LIMIT 3\n}\n", "module a, macro LIMIT"),
    ("cpp", "struct stat buffer{};\nclass Later;\nenum E e;\nvoid g(int (*f)(int), int h(int));\n", "function g"),
    ("cpp", "struct A {\n  A() : a_(1) {}\n#ifdef X\n  void f();\n#else\n  void g();\n#endif\n};\n",
     "class A, method A::A, method A::f, method A::g"),
    ("c", "typedef struct { int a; } T;\n", "type T"),
    ("c", "typedef struct tag { int a; } T;\n", "type T, class tag"),
    ("c", "union U { int a; } u;\nunion U v;\n", "class U"),
    ("c", "#ifndef A_H\n#define A_H\n#define LIMIT 3\n#define TWICE(x) (x + x)\n#endif\n", "macro LIMIT, macro TWICE"),
    ("c", "int f(void), *g(void);\nint (*pointer)(int);\n", "function f, function g"),
    ("javascript", "class A { constructor() {} static go(x) { return 1 } x = 1 }\n",
     "class A, method A.constructor, method A.go"),
    ("javascript", "const a = () => 1, b = function () {};\nvar c = () => { let d = 1; };\n",
     "function a, function b, function c"),
    ("javascript", "exports.all = function () {};\nconst o = { go: () => 1 };\n", "function all, function go"),
    ("go", "package p\n\ntype (\n\tID = string\n\tUser struct { n int }\n\tF func(int)\n)\n\nfunc (u User) Name() {}\n",
     "type ID, type User, type F, method User.Name"),
    ("go", "package p\n\nfunc (q *Queue[K, V]) Push(k K) {}\n\nfunc (Queue[T]) Pop() {}\n",
     "method Queue.Push, method Queue.Pop"),
    ("go", "package a\n\ntype A = B\n\ntype C interface{ D() }\n", "type A, type C, method C.D"),
    ("python", "LIMIT = 3\n\nclass A:\n    def f(self):\n        X = 1\n", "constant LIMIT, class A, method A.f"),
    ("typescript", "interface A { b(c: number): void }\nenum D { E }\nexport abstract class F<T> {}\ntype G = A;\n",
     "interface A, method A.b, enum D, class F, type G"),
    ("tsx", "export const A = ({ on }: B) => <button onClick={on}>Press</button>;\n", "function A"),
    ("rust", "trait A { fn f(&self); }\nenum B { C }\nmod d { fn e() {} }\n",
     "interface A, method A::f, class B, module d, function d::e"),
    ("rust", "impl<'a> fmt::Display for &'a B<'a> { fn h() {} }\n", "implementation B, method B::h"),
    ("java", "enum A { X }\nrecord B(int c) {}\nclass D { D() {} void e() {} }\n",
     "enum A, class B, class D, method D.D, method D.e"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "text", "expected"), CASES)
def test_names(language: str, text: str, expected: str) -> None:
    found = symbols_of(text.encode(), language, seconds=10)
    assert ", ".join(f"{one.kind} {one.qualified_name}" for one in found) == expected


def test_languages_by_name() -> None:
    names = {"a/b.py": "python", "x.TSX": "tsx", "x.mjs": "javascript", "a.h": "c", "a.C": "c", "README.md": "text"}
    assert {name: language_of(name) for name in names} == names
