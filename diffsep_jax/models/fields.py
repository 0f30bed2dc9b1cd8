"""Checks of the values of a model's fields; types are checked where options and JSON are read."""

import math
from typing import Any

from diffsep_jax.errors import UserError


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raises UserError unless the condition holds."""
    if not condition:
        raise UserError(f"{field} is {value!r}; expected {expected}")


def is_positive(value: int | float) -> bool:
    """Whether a number is above zero and finite."""
    return 0 < value < math.inf


def check_positive(network: Any, owner: str, *fields: str) -> None:
    """Raises UserError unless the fields are positive numbers, or non-empty tuples of them."""
    for field in fields:
        value = getattr(network, field)
        if isinstance(value, tuple):
            good = len(value) > 0 and all(map(is_positive, value))
            require(good, f"{owner}.{field}", value, "a tuple of positive numbers")
        else:
            require(is_positive(value), f"{owner}.{field}", value, "a positive number")


def check_lengths(network: Any, owner: str, field: str, other: str, more: int = 0) -> None:
    """Raises UserError unless `field` is as long as `other`, or longer by `more`."""
    length, expected = len(getattr(network, field)), len(getattr(network, other)) + more
    if length != expected:
        relation = "one more than" if more else "as many as"
        raise UserError(
            f"{owner}.{field} has {length} values; expected {expected}, {relation} {owner}.{other}"
        )


def check_divides(network: Any, owner: str, field: str, widths: dict[str, int]) -> None:
    """Raises UserError unless `field` divides each of the named widths."""
    divisor = getattr(network, field)
    for what, width in widths.items():
        require(width % divisor == 0, f"{owner}.{field}", divisor, f"a divisor of {width}, {what}")


def check_groups(network: Any, owner: str, widths: tuple[int, ...]) -> None:
    """Raises UserError unless `groups` divides the widths of the normalised levels."""
    named = {f"{owner}.widths[{level}]": width for level, width in enumerate(widths)}
    check_divides(network, owner, "groups", named)
