"""A `repr` for classes that hold documents: it shows sizes, because libraries log the `repr` of
arguments."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def shows_sizes(*shown: str) -> Callable[[C], C]:
    """Return a class decorator that adds a `repr` without any text, payload or key of a document.

    A field is shown as it is only if it is `shown`. Of any other field the `repr` has the size, or
    the type.

    Args:
        shown: Fields that hold settings or counts, and those whose own `repr` shows sizes.

    Example:
        Shard(index='desk', number=3, documents=DocumentBatch(keys: 40, texts: 40, …), chars=1200,
        pages: 1)
    """

    def decorate(decorated: C) -> C:
        names = _field_names(decorated)

        def show(self: object) -> str:
            fields = [_field(name, getattr(self, name), name in shown) for name in names]
            listed = ", ".join(field for field in fields if field)
            return f"{type(self).__name__}({listed})"

        decorated.__repr__ = show  # type: ignore[method-assign,assignment]
        return decorated

    return decorate


def _field_names(decorated: type) -> list[str]:
    """Return the fields of a dataclass, a class of attrs, or a NamedTuple."""
    attributes = getattr(decorated, "__attrs_attrs__", None)
    if attributes is not None:
        return [attribute.name for attribute in attributes]
    names: Any = getattr(decorated, "__dataclass_fields__", None) or getattr(
        decorated, "_fields", ()
    )
    return list(names)


def _field(name: str, value: object, is_shown: bool) -> str:
    if is_shown:
        return f"{name}={value!r}"
    if value is None:
        return ""
    # A text, a list of texts, an array of vectors: the length reveals no content.
    if isinstance(value, Sized):
        return f"{name}: {len(value)}"
    return f"{name}: {type(value).__name__}"
