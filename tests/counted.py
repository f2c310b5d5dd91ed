"""Figures that tests count for docs/reliability.md. They are properties of the test in a result file (`--junitxml`)."""

from __future__ import annotations

__all__ = ["begin", "count"]

_properties: list[tuple[str, object]] = []


def begin(properties: list[tuple[str, object]]) -> None:
    """Count for a test from now on, which has these properties."""
    global _properties  # noqa: PLW0603 - tests of a process run one after another
    _properties = properties


def count(name: str, number: int) -> None:
    """Add a number to what the test has counted under this name."""
    before = sum(int(str(value)) for key, value in _properties if key == name)
    _properties[:] = [(key, value) for key, value in _properties if key != name]
    _properties.append((name, before + number))
