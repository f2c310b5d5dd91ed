"""Conditions on payload fields, and kinds of their indexes, as objects of the embedded engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import qdrant_edge as e

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["EdgeDialect", "payload_kind"]

EdgeCondition: TypeAlias = "e.ConditionType"


KINDS = {
    "keyword": e.PayloadSchemaType.Keyword,
    "integer": e.PayloadSchemaType.Integer,
    "float": e.PayloadSchemaType.Float,
    "bool": e.PayloadSchemaType.Bool,
    "datetime": e.PayloadSchemaType.Datetime,
}


def payload_kind(field: str, kind: str) -> e.PayloadSchemaType:
    """The engine's kind of payload index. Raises StoreError where it is none."""
    try:
        return KINDS[kind]
    except KeyError:
        raise StoreError(f"payload index on {field}: {kind!r} is no kind; use {', '.join(KINDS)}") from None


class EdgeDialect:
    """Conditions as the engine's own objects."""

    def keywords(self, field: str, values: list[str]) -> EdgeCondition:
        """The field is one of these strings."""
        return e.FieldCondition(field, match=e.MatchAny(values))

    def truth(self, field: str, value: bool) -> EdgeCondition:
        """The field is this boolean."""
        # The binding takes a bool of Python's for an integer, and numpy's for what it is.
        return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(value))))

    def integer(self, field: str, value: int) -> EdgeCondition:
        """The field is this integer."""
        return e.FieldCondition(field, match=e.MatchValue(value))

    def numbers(self, field: str, bounds: Mapping[str, float]) -> EdgeCondition:
        """The field is a number within the bounds."""
        return e.FieldCondition(field, range=e.RangeFloat(**bounds))

    def times(self, field: str, bounds: Mapping[str, datetime]) -> EdgeCondition:
        """The field is a time within the bounds."""
        return e.FieldCondition(
            field, range=e.RangeDateTime(**{key: bound.isoformat() for key, bound in bounds.items()})
        )

    def empty(self, field: str) -> EdgeCondition:
        """The field is missing, null or an empty list."""
        return e.IsEmptyCondition(field)

    def group(
        self, must: list[EdgeCondition], should: list[EdgeCondition], must_not: list[EdgeCondition]
    ) -> EdgeCondition:
        """All of must, one of should, none of must_not."""
        return e.Filter(must=must or None, should=should or None, must_not=must_not or None)
