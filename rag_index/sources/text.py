"""Values of columns as text."""

from __future__ import annotations

import json
from typing import Any


class NotText(ValueError):
    """A value that is no text, with the reason."""


def read_text(value: Any, form: str = "plain") -> str:
    """Return a value as text; "" for NULL. Raises NotText."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    if isinstance(value, bytes | bytearray | memoryview):
        raise NotText(f"bytes ({bytes(value)!r:.40})")
    return str(value)
