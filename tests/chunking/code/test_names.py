"""The names that symbols get, and what is a symbol at all, where grammars alone would have it otherwise."""

import pytest

from rag_index.components.chunking.code.symbols import language_of, symbols_of

CASES = [
    ("ruby", "module A::B\n  class C; end\nend\nclass ::D; end\n", "module A::B, class A::B::C, class D"),
    ("ruby", "LIMIT = 3\nP = Struct.new(:a) do\n  def b = 1\nend\n", "constant LIMIT, class P, method P::b"),
    ("ruby", "def f\n  X ||= 1\n  y = 2\nend\n", "method f"),
    ("ruby", "class A\n  alias b c\n  alias :d :e\n  alias $f $g\nend\n", "class A, method A::b, method A::d"),
    ("cpp", "class LIB_EXPORT Name : public Base {\n public:\n  int get();\n};\n", "class Name, method Name::get"),
    ("cpp", "struct LIB_API(2) ALIGNED Name final { int get(); };\n", "class Name, method Name::get"),
    ("cpp", "extern LIB_EXPORT const Item* find(int key);\n", "function find"),
    ("cpp", "struct A {\n  void f() LOCKED(m) { g(); }\n  int h() const PURE;\n};\n",
     "class A, method A::f, method A::h"),
    ("cpp", "class A : B {\n  Q_OBJECT\n public:\n  void f();\n};\n", "class A, method A::f"),
    ("cpp", "template <> struct hash<Key> {\n  int operator()(Key k) const;\n};\n",
     "class hash, method hash::operator()"),
    ("cpp", "template <> void Map<int>::put(int k) {}\n", "method Map::put"),
    ("cpp", "template <class T> ns::Map<T>::Map() {}\n", "method ns::Map::Map"),
    ("cpp", "A::operator bool() const { return true; }\n", "method A::operator bool"),
    ("cpp", "typedef struct { int get(); } T;\n", "class T, method T::get"),
    ("cpp", "namespace a::b { enum class E : int { x }; using U = int; }\n", "module a::b, enum a::b::E, type a::b::U"),
    ("cpp", "void f() {\n  std::lock_guard<M> lock(mutex_);\n  int g(int);\n}\n", "function f"),
    ("cpp", "namespace a {\n#define LIMIT 3\n}\n", "module a, macro LIMIT"),
    ("cpp", "struct stat buffer{};\nclass Later;\nfriend class X;\n", "variable buffer"),
    ("cpp", "struct A {\n  A() : a_(1) {}\n#ifdef X\n  void f();\n#else\n  void g();\n#endif\n};\n",
     "class A, method A::A, method A::f, method A::g"),
    ("c", "typedef struct { int a; } T;\n", "class T"),
    ("c", "typedef struct T { int a; } T, *P;\n", "class T, type P"),
    ("c", "typedef struct tag { int a; } T;\n", "type T, class tag"),
    ("c", "#ifndef A_H\n#define A_H\n#define LIMIT 3\n#define ON\n#endif  // A_H\n", "macro LIMIT, macro ON"),
    ("c", "static const int limit = 3;\nint table[] = {1};\nint other;\n", "constant limit, variable table"),
    ("c", "int *(quoted)(void);\nint (*pointer)(int);\n", "function quoted"),
    ("javascript", "class A { static go = (x) => { return 1 }; #p = function () {}; x = 1 }\n",
     "class A, method A.go, method A.#p"),
    ("javascript", "class A { static limit = 3; x = 1 }\n", "class A, variable A.limit"),
    ("go", "package p\n\ntype (\n\tID = string\n\tUser struct { n int }\n\tF func(int)\n)\n\nfunc (u User) Name() {}\n",
     "type ID, type User, type F, method User.Name"),
    ("python", "class A:\n    LIMIT = 3\n    size: int\n    def f(self):\n        X = 1\n",
     "class A, constant A.LIMIT, method A.f"),
    ("javascript", "export const X = call(), Y = 2;\nlet z = f();\nlet w;\n", "constant X, constant Y, variable z"),
    ("javascript", "A.prototype.b = function c() {};\nB = class {};\n", "method A.b, class B"),
    ("typescript", "interface A { b(c: number): void }\nenum D { E }\nexport abstract class F<T> {}\n",
     "interface A, method A.b, enum D, class F"),
    ("tsx", "export const A = ({ on }: B) => <button onClick={on}>Press</button>;\n", "function A"),
    ("ruby", "class A < B\n  def self.all(size: 3) = []\nend\n", "class A, method A::all"),
    ("typescript", "export const X = call() as T;\ndeclare const Y: number;\n", "constant X, constant Y"),
    ("rust", "trait A { type T; const X: i32; fn f(&self); }\n", "interface A, type A::T, constant A::X, method A::f"),
    ("rust", "const A: i32 = 1;\nstatic B: i32 = 2;\nfn f() { const C: i32 = 3; }\n",
     "constant A, constant B, function f"),
    ("rust", "impl<'a> fmt::Display for &'a B<'a> { fn h() {} }\n", "implementation B, method B::h"),
    ("go", "package a\n\nconst A, B = 1, 2\n\nvar C = 3\n\nfunc f() { const D = 4 }\n",
     "constant A, constant B, variable C, function f"),
    ("go", "package a\n\ntype A = B\n\ntype C interface{ D() }\n", "type A, type C, method C.D"),
    ("java", "class A { static final int X = 1, Y = 2; final int z = 3; }\n", "class A, constant A.X, constant A.Y"),
    ("java", "class A { static int count = 1; }\n", "class A, variable A.count"),
    ("java", "interface A { int X = 1; }\n@interface B { int c(); }\n",
     "interface A, constant A.X, interface B, method B.c"),
    ("python", "type A = int\nB: int = 1\ndef f():\n    C = 2\n", "type A, constant B, function f"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "text", "expected"), CASES)
def test_names(language: str, text: str, expected: str) -> None:
    found = symbols_of(text.encode(), language, seconds=10)
    assert ", ".join(f"{one.kind} {one.qualified_name}" for one in found) == expected


def test_text_is_read_from_the_file_and_not_from_what_is_parsed() -> None:
    text = b"// One.\nclass LIB_EXPORT Name : public Base {\n  void f() LOCKED(m);\n};\n"
    name, method = symbols_of(text, "cpp", seconds=10)
    assert (name.signature, name.docstring) == ("class LIB_EXPORT Name : public Base", "One.")
    assert method.signature == "void f() LOCKED(m)"
    assert text[name.start : name.end].endswith(b"}")


def test_languages_by_name() -> None:
    names = {"a/b.py": "python", "x.TSX": "tsx", "x.mjs": "javascript", "a.h": "c", "a.C": "c", "README.md": "text"}
    assert {name: language_of(name) for name in names} == names
