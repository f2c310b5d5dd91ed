"""What defines a symbol in C and C++, where a name stands inside of declarators, and macros stand anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.chunking.code.definitions import MAX_NESTING, Named, Place, Reader, first_child, named

if TYPE_CHECKING:
    from tree_sitter import Node

_TYPES = {"struct_specifier": "class", "union_specifier": "class", "class_specifier": "class", "enum_specifier": "enum"}
_NO_FUNCTION = {"pointer_declarator", "reference_declarator", "array_declarator"}
"""Declarators that make something else than a function of the name in them."""

_DECLARATORS = _NO_FUNCTION | {
    "function_declarator", "parenthesized_declarator", "init_declarator", "attributed_declarator",
}  # fmt: skip
_TEMPLATES = {"template_type", "template_function", "template_method", "dependent_name"}
MAX_TAIL_BYTES = 2000
"""Bytes that may follow a header's guard, as comments."""

_COMMENT = re.compile(rb"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)
_KEYWORDS = {"defined", "for", "if", "return", "sizeof", "switch", "while"}
"""What damaged text may show in the place of a function's name."""
_NAME = rb"[A-Z_][A-Z0-9_]{2,}"
_CALL = rb"(?:[ \t]*\([^()\n]*\))?"
_GAP = rb"[ \t\r\n]+"
_HIDDEN = (
    # class EXPORT Name : Base {
    re.compile(
        rb"\b(?:class|struct|union)((?:" + _GAP + _NAME + _CALL + rb")+)" + _GAP + rb"(?!final\b)[A-Za-z_][\w:]*"
        rb"\s*(?:<[^<>{};]*>\s*)?(?:final\s*)?(?=:[^:]|\{)"
    ),
    # void lock() LOCKS_EXCLUDED(mutex);
    re.compile(rb"\)\s*(?:(?:const|noexcept|override|final)\s*)*(" + _NAME + _CALL + rb")\s*(?=[;{:=])"),
    # extern EXPORT INLINE const Type *function(…
    re.compile(
        rb"^[ \t]*(?:(?:extern|static|inline|virtual|friend|explicit)[ \t]+)*"
        rb"((?:" + _NAME + _CALL + _GAP + rb"){1,4})"
        rb"(?:[A-Za-z_][\w:]*(?:<[^<>;{}()]*>)?[ \t\r\n*&]+){1,6}[A-Za-z_~][\w:]*[ \t]*\(",
        re.M,
    ),
    # BEGIN_WARNINGS(4251), and the same without parentheses before what no type may precede
    re.compile(rb"^[ \t]*(" + _NAME + rb"[ \t]*\([^()\n]*\))[ \t]*\r?$(?=\s*(?:[A-Za-z_~}/]|\Z))", re.M),
    re.compile(
        rb"^[ \t]*(" + _NAME + rb")[ \t]*\r?$"
        rb"(?=\s*(?:}|\Z|(?:class|namespace|struct|template|public|private|protected|using|typedef|enum|extern)\b))",
        re.M,
    ),
)
_DIRECTIVE = re.compile(rb"(^[ \t]*#(?:[^\\\n]|\\\r?\n|\\.)*)", re.M)
_VISIBLE = re.compile(rb"[^\r\n]")


def _declared(node: Node | None) -> tuple[Node | None, bool]:
    """Return the node of the name in a declarator, and whether the name is that of a function."""
    is_function = False
    for _ in range(MAX_NESTING):
        if node is None or node.type not in _DECLARATORS:
            return node, is_function or (node is not None and _scopes(node)[1].type == "operator_cast")
        if node.type not in {"parenthesized_declarator", "init_declarator"}:
            is_function = node.type == "function_declarator"
        last = node.named_child(node.named_child_count - 1) if node.named_child_count else None
        node = node.child_by_field_name("declarator") or last
    return None, False


def _scopes(node: Node) -> tuple[list[Node], Node]:
    """Return what stands before a name, and the name itself."""
    scopes: list[Node] = []
    for _ in range(MAX_NESTING):
        name = node.child_by_field_name("name") if node.type == "qualified_identifier" else None
        if name is None:
            break
        scopes += filter(None, [node.child_by_field_name("scope")])
        node = name
    return scopes, node


def _split_name(node: Node, place: Place) -> tuple[str, str]:
    """Return the owner that a name has before it, and the name, both without the arguments of templates."""
    scopes, last = _scopes(node)
    text = place.text(_without_arguments(last))
    if last.type == "operator_cast":
        text = text.removesuffix(place.text(last.child_by_field_name("declarator")))
    return "::".join(place.text(_without_arguments(scope)) for scope in scopes), " ".join(text.split())


def _without_arguments(node: Node) -> Node:
    while node.type in _TEMPLATES:
        inner = node.child_by_field_name("name") or first_child(node)
        if inner is None:
            break
        node = inner
    return node


def _function(node: Node, place: Place) -> Iterator[Named]:
    name, is_function = _declared(node.child_by_field_name("declarator"))
    if name is not None and is_function:
        owner, last = _split_name(name, place)
        if last and last not in _KEYWORDS:
            yield Named("function", last, node, owner)


def _declaration(node: Node, place: Place) -> Iterator[Named]:
    if place.type_around() == "friend_declaration" or (place.is_local and node.type == "declaration"):
        return
    qualifiers = [place.text(child) for child in node.children if child.type == "type_qualifier"]
    is_constant = not {"const", "constexpr", "constinit"}.isdisjoint(qualifiers)
    found = 0
    for declarator in node.children_by_field_name("declarator"):
        name, is_function = _declared(declarator)
        has_value = declarator.type == "init_declarator" or node.child_by_field_name("default_value") is not None
        if name is None or not (is_function or has_value):
            continue
        kind = "function" if is_function else "constant" if is_constant else "variable"
        owner, last = _split_name(name, place)
        if node.child_by_field_name("type") is None and last.isupper():
            continue  # a macro that is called like a constructor
        is_member = kind == "variable" and node.type != "declaration"  # members with a value are no variables
        if last and last not in _KEYWORDS and not is_member:
            yield Named(kind, last, declarator if found else node, owner, encloses=False)
            found += 1


def _type(node: Node, place: Place) -> Iterator[Named]:
    name = node.child_by_field_name("name")
    if name is None or node.child_by_field_name("body") is None:
        return
    owner, last = _split_name(name, place)
    if place.type_around() == "type_definition" and last in _typedef_names(place.around[-1], place):
        return  # `typedef struct T {…} T` is one symbol
    yield Named(_TYPES[node.type], last, node, owner)


def _typedef_names(node: Node, place: Place) -> list[str]:
    names = [_declared(declarator)[0] for declarator in node.children_by_field_name("declarator")]
    return [place.text(name) for name in names if name is not None]


def _typedef(node: Node, place: Place) -> Iterator[Named]:
    """Read the names of a typedef; a type without a name of its own takes the first of them."""
    target = node.child_by_field_name("type")
    names = _typedef_names(node, place)
    kind, encloses = "type", False
    if target is not None and target.type in _TYPES and target.child_by_field_name("body") is not None:
        own = target.child_by_field_name("name")
        if own is None or place.text(own) in names:
            kind, encloses = _TYPES[target.type], True
    declarators = node.children_by_field_name("declarator")
    for number, (name, declarator) in enumerate(zip(names, declarators, strict=False)):
        if number:
            yield Named("type", name, declarator, encloses=False, is_global=encloses)
        else:
            yield Named(kind, name, node, encloses=encloses)


def _namespace(node: Node, place: Place) -> Iterator[Named]:
    owner, _, last = "".join(place.text(node.child_by_field_name("name")).split()).rpartition("::")
    if last:
        yield Named("module", last, node, owner)


def _macro(node: Node, place: Place) -> Iterator[Named]:
    """Read a macro that is not the guard of a header: one that is defined if it is not, for the rest of the file."""
    name = node.child_by_field_name("name")
    if name is None:
        return
    if node.child_by_field_name("value") is None and place.type_around() == "preproc_ifdef":
        condition, tail = place.around[-1].child_by_field_name("name"), place.data[place.around[-1].end_byte :]
        is_last = len(tail) <= MAX_TAIL_BYTES and not _COMMENT.sub(b"", tail).strip()
        if is_last and condition is not None and place.text(condition) == place.text(name):
            return
    yield Named("macro", place.text(name), node, is_global=True)


C: Mapping[str, Reader] = {
    "function_definition": _function,
    "declaration": _declaration,
    "type_definition": _typedef,
    "struct_specifier": _type,
    "union_specifier": _type,
    "enum_specifier": _type,
    "preproc_def": _macro,
    "preproc_function_def": _macro,
}
CPP: Mapping[str, Reader] = {
    **C,
    "field_declaration": _declaration,
    "class_specifier": _type,
    "namespace_definition": _namespace,
    "alias_declaration": partial(named, kind="type"),
    "concept_definition": partial(named, kind="type"),
}


def hide_macros(data: bytes, check: Callable[[], None]) -> bytes:
    """Return the file with spaces in place of macros that the grammar does not expect; directives stay as they are.
    `check` is called now and then, and may raise."""
    parts = _DIRECTIVE.split(data)
    for number in range(0, len(parts), 2):
        for pattern in _HIDDEN:
            check()
            parts[number] = pattern.sub(_hide, parts[number])
    return b"".join(parts)


def _hide(match: re.Match[bytes]) -> bytes:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + _VISIBLE.sub(b" ", match[1]) + match[0][end:]
