"""Floats that come back from the store as they went in.

Qdrant keeps payloads as JSON text, and reads numbers of 16 and 17 digits (and some with large exponents) with another
last bit: its parser, serde_json without `float_roundtrip`, turns all digits into one float and scales that by a power
of ten, so it rounds twice. About one in ten of `random()`, a / b and square roots is changed. `storable_float` returns
the nearest float that the parser does not change.
"""

from __future__ import annotations

import math

_POWERS = [float(f"1e{exponent}") for exponent in range(309)]
MAX_STEPS = 1000
"""Neighbours that are tried on either side; some tens are the most that random bits have needed."""


def storable_float(value: float) -> float:
    """Return the nearest float that the store gives back unchanged: mostly `value` itself, else some last bits away."""
    if not math.isfinite(value) or _parsed(value) == value:
        return value
    above = below = value
    for _ in range(MAX_STEPS):
        above, below = math.nextafter(above, math.inf), math.nextafter(below, -math.inf)
        for neighbour in (above, below):
            if math.isfinite(neighbour) and _parsed(neighbour) == neighbour:
                return neighbour
    return float(f"{value:.5g}")


def _parsed(value: float) -> float:
    """Return what serde_json reads (`f64_from_parts`) from the shortest text of a float, which is that of Python."""
    mantissa, _, exponent_text = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int(exponent_text or 0) - len(fraction)
    parsed = float(int(whole + fraction))
    while parsed:
        if abs(exponent) < len(_POWERS):
            parsed = parsed * _POWERS[exponent] if exponent >= 0 else parsed / _POWERS[-exponent]
            break
        parsed /= 1e308  # only smaller than all powers: a finite float has no such positive exponent
        exponent += 308
    return math.copysign(parsed, value)
