"""A model's fields as JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffsep_jax.models.registry import FAMILIES, family_name
from diffsep_jax.separation_model import SeparationModel

FORMAT = "diffsep-jax 1"
DEFAULT_FAMILY = "waveform"
"""The family of files that do not name one."""

_NOT_STORED = {"compute"}  # how, not what


def model_to_json(model: SeparationModel) -> dict[str, Any]:
    """The model's fields as plain JSON values: what it is, not how it is computed."""
    values: dict[str, Any] = {"format": FORMAT}
    if (family := family_name(model.generator)) != DEFAULT_FAMILY:
        values["family"] = family
    for field in dataclasses.fields(model):
        if field.name in _NOT_STORED:
            continue
        value = getattr(model, field.name)
        if field.name in ("generator", "conditioner"):
            value = {name: getattr(value, name) for name in _network_fields(type(value))}
        values[field.name] = value
    return values


def model_from_json(values: Mapping[str, Any]) -> SeparationModel:
    """The inverse of `model_to_json`. Raises TypeError or ValueError for other input."""
    if not isinstance(values, Mapping):
        raise ValueError("it is not a JSON object")
    values = dict(values)
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    known = {f.name for f in dataclasses.fields(SeparationModel)} - _NOT_STORED | {"family"}
    if unknown := values.keys() - known:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    family = values.pop("family", DEFAULT_FAMILY)
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; one of {', '.join(FAMILIES)} is expected")
    for name in ("generator", "conditioner"):
        network = getattr(FAMILIES[family], name)
        if not isinstance(values.get(name), Mapping):
            raise ValueError(f"{name} is {values.get(name)!r}; an object of its fields is expected")
        fields = {key: _tuples(value) for key, value in values[name].items()}
        if unknown := fields.keys() - set(_network_fields(network)):
            raise ValueError(f"unknown {name} fields {sorted(unknown)}")
        values[name] = network(**fields)
    return SeparationModel(**values)


def _tuples(value: Any) -> Any:
    """JSON's lists, at any depth, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _network_fields(network: Any) -> list[str]:
    """A linen module's own fields: `parent` and `name` are Flax's."""
    return [f.name for f in dataclasses.fields(network) if f.name not in ("parent", "name")]
