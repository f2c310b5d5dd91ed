"""What defines a symbol, by language and type of node. The kinds are those of the grammars' own tags queries
(https://tree-sitter.github.io/tree-sitter/4-code-navigation.html), with what these leave out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_NESTING = 100
"""How deep a name may stand in a declaration: the time limit is not checked on the way."""
_FUNCTIONS = {"arrow_function", "function_expression", "generator_function"}
_QUOTES = "\"'`"
_CHAIN = re.compile(r"[\w$]+(\.[\w$]+)*")
_MAX_CHAIN = 200
_EXPORTS = {"exports", "module.exports"}
_GLOBALS = _EXPORTS | {"module", "this", "window", "self", "global", "globalThis"}
"""Objects whose functions are named without them."""
_RECEIVER = re.compile(r"\b([A-Za-z_]\w*+)\s*+(\[[^\[)]*+\])?\s*+,?\s*+\)$")
_TYPE_MAKERS = {"Class.new", "Data.define", "Module.new", "Struct.new"}


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a node: the nodes around it, the outermost first, and whether it is local to a function."""

    data: bytes
    around: list[Node]
    is_local: bool

    def text(self, node: Node | None) -> str:
        """Return the text of a node, "" without one."""
        return "" if node is None else self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def type_around(self, levels: int = 1) -> str:
        """Return the type of the node around this one, or of one further out; "" if there is none."""
        return self.around[-levels].type if len(self.around) >= levels else ""


@dataclass(frozen=True, slots=True)
class Named:
    """A symbol that a node defines."""

    kind: str
    name: str
    node: Node
    owner: str = ""
    """The type or namespace that the definition itself names as its owner."""
    encloses: bool = True
    """Whether the symbol's name is part of the qualified names of symbols within it."""
    is_global: bool = False
    """Whether it belongs to nothing, wherever it stands, as a macro of C does."""


Reader = Callable[["Node", Place], Iterator[Named]]


def first_child(node: Node) -> Node | None:
    """Return the first of the named nodes in a node, if it has one."""
    return node.named_child(0) if node.named_child_count else None


def named(node: Node, place: Place, kind: str, field: str = "name") -> Iterator[Named]:
    """Read a node that defines one symbol, whose name is in a field."""
    name = node.child_by_field_name(field)
    if name is not None and name.type != "computed_property_name" and (text := place.text(name).strip(_QUOTES)):
        yield Named(kind, text, node)


def _several(node: Node, place: Place, kind: str, names: list[Node]) -> Iterator[Named]:
    """Read a declaration of several names: it belongs to the first of them."""
    for number, name in enumerate(name for name in names if name.is_named):
        if (text := place.text(name)) != "_":
            yield Named(kind, text, name if number else node, encloses=False)


def _python_assignment(node: Node, place: Place) -> Iterator[Named]:
    left = node.child_by_field_name("left")
    in_class = place.type_around(3) == "class_definition" and node.child_by_field_name("right") is not None
    if left is not None and left.type == "identifier" and (in_class or place.type_around(2) == "module"):
        yield Named("constant", place.text(left), node)


def _python_type_alias(node: Node, place: Place) -> Iterator[Named]:
    yield Named("type", place.text(node.child_by_field_name("left")).partition("[")[0], node)


def _js_function_expression(node: Node, place: Place) -> Iterator[Named]:
    """Read a function with a name of its own, unless something else gives it one."""
    if place.type_around() not in {
        "variable_declarator", "assignment_expression", "pair", "field_definition", "public_field_definition",
    }:  # fmt: skip
        yield from named(node, place, "class" if node.type == "class" else "function")


def _js_value(node: Node | None) -> Node | None:
    for _ in range(MAX_NESTING):
        if node is None or node.type not in {"parenthesized_expression", "as_expression", "satisfies_expression"}:
            return node
        node = first_child(node)
    return None


def _js_kind(value: Node | None) -> str:
    if value is None:
        return ""
    return "function" if value.type in _FUNCTIONS else "class" if value.type == "class" else ""


def _js_variable(node: Node, place: Place) -> Iterator[Named]:
    name, value = node.child_by_field_name("name"), _js_value(node.child_by_field_name("value"))
    if name is None or name.type != "identifier":
        return
    kind = _js_kind(value)
    if not kind and not place.is_local and place.around:
        is_const = place.data.startswith(b"const", place.around[-1].start_byte)
        if (value is not None and not _is_require(value, place)) or place.type_around(2) == "ambient_declaration":
            kind = "constant" if is_const else "variable"
    if kind:
        yield Named(kind, place.text(name), node)


def _is_require(value: Node, place: Place) -> bool:
    return value.type == "call_expression" and place.text(value.child_by_field_name("function")) == "require"


def _js_assignment(node: Node, place: Place) -> Iterator[Named]:
    left, right = node.child_by_field_name("left"), _js_value(node.child_by_field_name("right"))
    if left is None or right is None:
        return
    if left.type == "identifier":
        if kind := _js_kind(right):
            yield Named(kind, place.text(left), node)
        return
    name, container = left.child_by_field_name("property"), left.child_by_field_name("object")
    if left.type != "member_expression" or name is None or container is None:
        return
    owner = place.text(container) if container.end_byte - container.start_byte <= _MAX_CHAIN else ""
    is_export = owner in _EXPORTS and place.type_around() == "expression_statement" and not place.is_local
    kind = _js_kind(right) or ("constant" if is_export and _is_own_value(right, place) else "")
    if kind and place.text(left) != "module.exports":
        is_method = owner.endswith(".prototype")
        owner = owner.removesuffix(".prototype").removeprefix("exports.").removeprefix("module.exports.")
        owner = owner if _CHAIN.fullmatch(owner) and owner not in _GLOBALS else ""
        yield Named("method" if is_method and kind == "function" else kind, place.text(name), node, owner)


def _is_own_value(value: Node, place: Place) -> bool:
    """Return whether a value is made where it is exported, and not defined or imported elsewhere."""
    elsewhere = {"identifier", "member_expression", "assignment_expression"}
    is_void = value.type == "unary_expression" and place.text(value).startswith("void")
    return not (value.type in elsewhere or is_void or _is_require(value, place))


def _js_member(node: Node, place: Place, kind: str, field: str) -> Iterator[Named]:
    value = _js_value(node.child_by_field_name("value"))
    if value is not None and value.type in _FUNCTIONS:
        yield from named(node, place, kind, field)
    elif kind == "method" and any(child.type == "static" for child in node.children):
        yield from named(node, place, "variable", field)


def _at_top(node: Node, place: Place, kind: str) -> Iterator[Named]:
    if not place.is_local:
        yield from _several(node, place, kind, node.children_by_field_name("name"))


def _go_method(node: Node, place: Place) -> Iterator[Named]:
    match = _RECEIVER.search(place.text(node.child_by_field_name("receiver")))
    yield Named("method", place.text(node.child_by_field_name("name")), node, match[1] if match else "")


def _rust_implementation(node: Node, place: Place) -> Iterator[Named]:
    target = node.child_by_field_name("type")
    for _ in range(MAX_NESTING):
        if target is None or target.type not in {"reference_type", "generic_type"}:
            break
        target = target.child_by_field_name("type")
    if target is not None:
        yield Named("implementation", place.text(target), node)


def _java_field(node: Node, place: Place) -> Iterator[Named]:
    modifiers = first_child(node)
    words = {child.type for child in modifiers.children} if modifiers and modifiers.type == "modifiers" else set()
    if node.type == "constant_declaration" or "static" in words:
        names = [each.child_by_field_name("name") for each in node.children_by_field_name("declarator")]
        kind = "constant" if node.type == "constant_declaration" or "final" in words else "variable"
        yield from _several(node, place, kind, [name for name in names if name is not None])


def _ruby(node: Node, place: Place, kind: str) -> Iterator[Named]:
    owner, _, last = place.text(node.child_by_field_name("name")).rpartition("::")
    yield Named(kind, last, node, owner.removeprefix("::"))


def _ruby_alias(node: Node, place: Place) -> Iterator[Named]:
    name = node.child_by_field_name("name")
    if name is not None and name.type != "global_variable":
        yield Named("method", place.text(name).removeprefix(":"), node)


def _ruby_assignment(node: Node, place: Place) -> Iterator[Named]:
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or place.is_local or left.type not in {"constant", "scope_resolution"}:
        return
    method = right.child_by_field_name("method") if right is not None and right.type == "call" else None
    is_type = False
    if method is not None and right is not None:
        start, end = right.start_byte, min(method.end_byte, right.start_byte + _MAX_CHAIN)
        is_type = place.data[start:end].decode("utf-8", "replace") in _TYPE_MAKERS
    owner, _, last = place.text(left).rpartition("::")
    yield Named("class" if is_type else "constant", last, node, owner)


def _named(kind: str, *types: str) -> dict[str, Reader]:
    """Return the reader of nodes of these types, which define one symbol of this kind, named by the field `name`."""
    return dict.fromkeys(types, partial(named, kind=kind))


PYTHON: Mapping[str, Reader] = {
    **_named("class", "class_definition"),
    **_named("function", "function_definition"),
    "assignment": _python_assignment,
    "type_alias_statement": _python_type_alias,
}
JAVASCRIPT: Mapping[str, Reader] = {
    **_named("class", "class_declaration", "abstract_class_declaration"),
    **_named("function", "function_declaration", "generator_function_declaration", "function_signature"),
    **dict.fromkeys(("class", "function_expression", "generator_function"), _js_function_expression),
    **_named("method", "method_definition", "method_signature", "abstract_method_signature"),
    "variable_declarator": _js_variable,
    "assignment_expression": _js_assignment,
    "pair": partial(_js_member, kind="function", field="key"),
    "field_definition": partial(_js_member, kind="method", field="property"),
    "public_field_definition": partial(_js_member, kind="method", field="name"),
    **_named("interface", "interface_declaration"),
    **_named("enum", "enum_declaration"),
    **_named("type", "type_alias_declaration"),
    **_named("module", "internal_module", "module"),
}
GO: Mapping[str, Reader] = {
    **_named("function", "function_declaration"),
    "method_declaration": _go_method,
    **_named("method", "method_elem", "method_spec"),
    **_named("type", "type_spec", "type_alias"),
    "const_spec": partial(_at_top, kind="constant"),
    "var_spec": partial(_at_top, kind="variable"),
}
RUST: Mapping[str, Reader] = {
    **_named("class", "struct_item", "union_item"),
    **_named("enum", "enum_item"),
    **_named("type", "type_item", "associated_type"),
    **_named("interface", "trait_item"),
    "impl_item": _rust_implementation,
    **_named("function", "function_item", "function_signature_item"),
    **_named("module", "mod_item"),
    **_named("macro", "macro_definition"),
    **dict.fromkeys(("const_item", "static_item"), partial(_at_top, kind="constant")),
}
JAVA: Mapping[str, Reader] = {
    **_named("class", "class_declaration", "record_declaration"),
    **_named("enum", "enum_declaration"),
    **_named("interface", "interface_declaration", "annotation_type_declaration"),
    **_named("method", "annotation_type_element_declaration", "method_declaration"),
    **_named("method", "constructor_declaration", "compact_constructor_declaration"),
    **dict.fromkeys(("field_declaration", "constant_declaration"), _java_field),
}
RUBY: Mapping[str, Reader] = {
    "class": partial(_ruby, kind="class"),
    "module": partial(_ruby, kind="module"),
    **_named("method", "method", "singleton_method"),
    "alias": _ruby_alias,
    "assignment": _ruby_assignment,
}
