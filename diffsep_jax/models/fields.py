"""Checks of the networks' fields: a bad one is refused by its name, with what is expected."""

from typing import Any

from diffsep_jax.errors import UserError


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raises UserError unless the condition holds."""
    if not condition:
        raise UserError(f"{field} is {value!r}; {expected} is expected")


def is_whole(value: object, lowest: int = 1) -> bool:
    """Whether `value` is an int (no bool) of at least `lowest`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def is_positive(value: object) -> bool:
    """Whether `value` is a finite number (no bool) above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value < float("inf")


def check_whole(network: object, owner: str, *fields: str, lowest: int = 1) -> None:
    """Fields that are ints of at least `lowest`."""
    for field in fields:
        value = getattr(network, field)
        expected = f"a whole number of at least {lowest}"
        require(is_whole(value, lowest), f"{owner}.{field}", value, expected)


def check_wholes(network: object, owner: str, *fields: str) -> None:
    """Fields that are tuples of positive ints."""
    for field in fields:
        value = getattr(network, field)
        good = isinstance(value, tuple) and len(value) > 0 and all(map(is_whole, value))
        require(good, f"{owner}.{field}", value, "a tuple of positive whole numbers")


def check_choice(network: object, owner: str, field: str, choices: tuple[object, ...]) -> None:
    """A field that is one of some values; True is not 1."""
    value = getattr(network, field)
    good = any(type(value) is type(choice) and value == choice for choice in choices)
    require(good, f"{owner}.{field}", value, " or ".join(map(repr, choices)))


def check_divides(network: object, owner: str, field: str, widths: dict[str, int]) -> None:
    """A field that divides each of the named widths."""
    divisor = getattr(network, field)
    for what, width in widths.items():
        require(width % divisor == 0, f"{owner}.{field}", divisor, f"a divisor of {width}, {what},")


def check_common(network: Any, owner: str) -> None:
    """The fields that both waveform networks have, by themselves and with each other."""
    check_wholes(network, owner, "widths", "factors")
    levels = len(network.factors)
    if len(network.widths) != levels + 1:
        raise UserError(
            f"{owner}.widths has {len(network.widths)} values; one more than the {levels} of"
            f" {owner}.factors is expected"
        )
    check_whole(network, owner, "patch_size", "groups", "attention_width", "attention_heads")
    for field in ("attention_levels", "injection_levels"):
        value = getattr(network, field)
        good = is_whole(value, 0) and value <= levels
        require(good, f"{owner}.{field}", value, f"a whole number from 0 to the {levels} levels")
    check_divides(
        network, owner, "attention_heads", {f"{owner}.attention_width": network.attention_width}
    )
    # The bottleneck, the last width, is not normalised.
    normalised = {f"{owner}.widths[{i}]": width for i, width in enumerate(network.widths[:-1])}
    check_divides(network, owner, "groups", normalised)
