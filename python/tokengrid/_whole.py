"""Arguments that are whole numbers in a range."""

from __future__ import annotations

import operator
from typing import Any

from ._errors import CacheValueError

#: Beyond it, sizes and positions are mistakes.
LARGE = 2**48


def whole(name: str, value: Any, low: int = 0, high: int = LARGE) -> int:
    """``value`` as an ``int``. A bool, a float or a text is a :class:`TypeError`; one out of range a :class:`CacheValueError`."""
    try:
        number = operator.index(value) if not isinstance(value, bool) else None
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} is {value!r}, expected a whole number")
    if number < low:
        raise CacheValueError(f"{name} is {number}, expected at least {low}")
    if number > high:
        raise CacheValueError(f"{name} is {number}, expected at most {high}")
    return number
