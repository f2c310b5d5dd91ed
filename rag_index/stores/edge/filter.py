"""Conditions on payload fields, as objects of the embedded engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import qdrant_edge as e

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

EdgeCondition: TypeAlias = "e.ConditionType"


class EdgeDialect:
    """A maker of the engine's conditions and filters."""

    def keywords(self, field: str, values: list[str]) -> EdgeCondition:
        """Require the field to be one of these strings."""
        return e.FieldCondition(field, match=e.MatchAny(values))

    def truth(self, field: str, value: bool) -> EdgeCondition:
        """Require the field to be this boolean."""
        # The binding treats a Python bool as an integer, and a numpy bool as a boolean.
        return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(value))))

    def integers(self, field: str, values: list[int]) -> EdgeCondition:
        """Require the field to be one of these integers."""
        return e.FieldCondition(field, match=e.MatchAny(values))

    def numbers(self, field: str, bounds: Mapping[str, float]) -> EdgeCondition:
        """Require the field to be a number within the bounds."""
        return e.FieldCondition(field, range=e.RangeFloat(**bounds))

    def times(self, field: str, bounds: Mapping[str, datetime]) -> EdgeCondition:
        """Require the field to be a time within the bounds."""
        return e.FieldCondition(
            field, range=e.RangeDateTime(**{key: bound.isoformat() for key, bound in bounds.items()})
        )

    def empty(self, field: str) -> EdgeCondition:
        """Require the field to be missing, null or an empty list."""
        return e.IsEmptyCondition(field)

    def group(
        self, must: list[EdgeCondition], should: list[EdgeCondition], must_not: list[EdgeCondition]
    ) -> EdgeCondition:
        """Require all of must, one of should and none of must_not."""
        return e.Filter(must=must or None, should=should or None, must_not=must_not or None)
