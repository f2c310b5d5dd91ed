"""What defines a symbol, by language and type of node. The kinds are those of the grammars' own tags queries
(https://tree-sitter.github.io/tree-sitter/4-code-navigation.html), with what these leave out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
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
_GLOBALS = {"exports", "module.exports", "module", "this", "window", "self", "global", "globalThis"}
"""Objects whose functions are named without them."""
_RECEIVER = re.compile(r"\b([A-Za-z_]\w*+)\s*+(\[[^\[)]*+\])?\s*+,?\s*+\)$")
_TYPE_MAKERS = {"Class.new", "Data.define", "Module.new", "Struct.new"}
_CLASSES = ("struct_specifier", "union_specifier", "class_specifier")
_C_TYPES = {**dict.fromkeys(_CLASSES, "class"), "enum_specifier": "enum"}
_NO_FUNCTION = {"pointer_declarator", "reference_declarator", "array_declarator"}
"""Declarators that make something else than a function of the name in them."""
_DECLARATORS = _NO_FUNCTION | {
    "function_declarator", "parenthesized_declarator", "init_declarator", "attributed_declarator",
}  # fmt: skip
_TEMPLATES = {"template_type", "template_function", "template_method", "dependent_name"}
_KEYWORDS = {"defined", "for", "if", "return", "sizeof", "switch", "while"}
"""What damaged text may show in the place of a function's name."""


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


def unwrapped(node: Node | None, wrappers: Set[str], field: str = "") -> Node | None:
    """Return what nodes of these types are wrapped around: the node in a field, or else their first one."""
    for _ in range(MAX_NESTING):
        if node is None or node.type not in wrappers:
            return node
        node = node.child_by_field_name(field) or first_child(node)
    return None


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


def _js_value(node: Node, field: str) -> Node | None:
    wrappers = {"parenthesized_expression", "as_expression", "satisfies_expression"}
    return unwrapped(node.child_by_field_name(field), wrappers)


def _js_kind(value: Node | None) -> str:
    if value is None:
        return ""
    return "function" if value.type in _FUNCTIONS else "class" if value.type == "class" else ""


def _js_variable(node: Node, place: Place) -> Iterator[Named]:
    name, value = node.child_by_field_name("name"), _js_value(node, "value")
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
    left, right = node.child_by_field_name("left"), _js_value(node, "right")
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
    kind = _js_kind(right)
    if kind and place.text(left) != "module.exports":
        is_method = owner.endswith(".prototype")
        owner = owner.removesuffix(".prototype").removeprefix("exports.").removeprefix("module.exports.")
        owner = owner if _CHAIN.fullmatch(owner) and owner not in _GLOBALS else ""
        yield Named("method" if is_method and kind == "function" else kind, place.text(name), node, owner)


def _js_member(node: Node, place: Place, kind: str, field: str) -> Iterator[Named]:
    value = _js_value(node, "value")
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
    target = unwrapped(node.child_by_field_name("type"), {"reference_type", "generic_type"}, "type")
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


def _c_declared(node: Node | None) -> tuple[Node | None, bool]:
    """Return the node of the name in a declarator, and whether the name is that of a function."""
    is_function = False
    for _ in range(MAX_NESTING):
        if node is None or node.type not in _DECLARATORS:
            return node, is_function or (node is not None and _c_scopes(node)[1].type == "operator_cast")
        if node.type not in {"parenthesized_declarator", "init_declarator"}:
            is_function = node.type == "function_declarator"
        last = node.named_child(node.named_child_count - 1) if node.named_child_count else None
        node = node.child_by_field_name("declarator") or last
    return None, False


def _c_scopes(node: Node) -> tuple[list[Node], Node]:
    """Return what stands before a name, and the name itself."""
    scopes: list[Node] = []
    for _ in range(MAX_NESTING):
        name = node.child_by_field_name("name") if node.type == "qualified_identifier" else None
        if name is None:
            break
        scopes += filter(None, [node.child_by_field_name("scope")])
        node = name
    return scopes, node


def _c_name(node: Node, place: Place) -> tuple[str, str]:
    """Return the owner that a name has before it, and the name, both without the arguments of templates."""
    scopes, last = _c_scopes(node)
    *owner, text = (place.text(unwrapped(one, _TEMPLATES, "name")) for one in (*scopes, last))
    if last.type == "operator_cast":
        text = text.removesuffix(place.text(last.child_by_field_name("declarator")))
    return "::".join(owner), " ".join(text.split())


def _c_function(node: Node, place: Place) -> Iterator[Named]:
    name, is_function = _c_declared(node.child_by_field_name("declarator"))
    if name is not None and is_function:
        owner, last = _c_name(name, place)
        if last and last not in _KEYWORDS:
            yield Named("function", last, node, owner)


def _c_declaration(node: Node, place: Place) -> Iterator[Named]:
    if place.type_around() == "friend_declaration" or (place.is_local and node.type == "declaration"):
        return
    qualifiers = [place.text(child) for child in node.children if child.type == "type_qualifier"]
    is_constant = not {"const", "constexpr", "constinit"}.isdisjoint(qualifiers)
    found = 0
    for declarator in node.children_by_field_name("declarator"):
        name, is_function = _c_declared(declarator)
        has_value = declarator.type == "init_declarator" or node.child_by_field_name("default_value") is not None
        if name is None or not (is_function or has_value):
            continue
        kind = "function" if is_function else "constant" if is_constant else "variable"
        owner, last = _c_name(name, place)
        if node.child_by_field_name("type") is None and last.isupper():
            continue  # a macro that is called like a constructor
        is_member = kind == "variable" and node.type != "declaration"  # members with a value are no variables
        if last and last not in _KEYWORDS and not is_member:
            yield Named(kind, last, declarator if found else node, owner, encloses=False)
            found += 1


def _c_type(node: Node, place: Place) -> Iterator[Named]:
    name = node.child_by_field_name("name")
    if name is None or node.child_by_field_name("body") is None:
        return
    owner, last = _c_name(name, place)
    if place.type_around() == "type_definition" and last in _c_typedef_names(place.around[-1], place):
        return  # `typedef struct T {…} T` is one symbol
    yield Named(_C_TYPES[node.type], last, node, owner)


def _c_typedef_names(node: Node, place: Place) -> list[str]:
    names = [_c_declared(declarator)[0] for declarator in node.children_by_field_name("declarator")]
    return [place.text(name) for name in names if name is not None]


def _c_typedef(node: Node, place: Place) -> Iterator[Named]:
    """Read the names of a typedef; a type without a name of its own takes the first of them."""
    target = node.child_by_field_name("type")
    names = _c_typedef_names(node, place)
    kind, encloses = "type", False
    if target is not None and target.type in _C_TYPES and target.child_by_field_name("body") is not None:
        own = target.child_by_field_name("name")
        if own is None or place.text(own) in names:
            kind, encloses = _C_TYPES[target.type], True
    declarators = node.children_by_field_name("declarator")
    for number, (name, declarator) in enumerate(zip(names, declarators, strict=False)):
        if number:
            yield Named("type", name, declarator, encloses=False, is_global=encloses)
        else:
            yield Named(kind, name, node, encloses=encloses)


def _cpp_namespace(node: Node, place: Place) -> Iterator[Named]:
    owner, _, last = "".join(place.text(node.child_by_field_name("name")).split()).rpartition("::")
    if last:
        yield Named("module", last, node, owner)


def _c_macro(node: Node, place: Place) -> Iterator[Named]:
    """Read a macro that is not the guard of a header: one without a value that is defined if it is not."""
    name, condition = place.text(node.child_by_field_name("name")), ""
    if node.child_by_field_name("value") is None and place.type_around() == "preproc_ifdef":
        condition = place.text(place.around[-1].child_by_field_name("name"))
    if name and name != condition:
        yield Named("macro", name, node, is_global=True)


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
C: Mapping[str, Reader] = {
    "function_definition": _c_function,
    "declaration": _c_declaration,
    "type_definition": _c_typedef,
    **dict.fromkeys(_C_TYPES, _c_type),
    **dict.fromkeys(("preproc_def", "preproc_function_def"), _c_macro),
}
CPP: Mapping[str, Reader] = {
    **C,
    "field_declaration": _c_declaration,
    "namespace_definition": _cpp_namespace,
    **_named("type", "alias_declaration", "concept_definition"),
}
