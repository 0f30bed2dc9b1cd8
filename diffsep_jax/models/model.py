"""A separation model: its two networks, how their outputs are read as a velocity, its JSON.

Training and inference both go through the methods here, so they cannot disagree.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffsep_jax.diffusion import alpha_beta
from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.fields import is_positive, is_whole, require
from diffsep_jax.models.registry import (
    FAMILIES,
    AnyConditioner,
    AnyGenerator,
    Family,
    family_name,
)
from diffsep_jax.models.spectral.bands import BandGroups
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.models.waveform.conditioner import Conditioning

Params = Mapping[str, Any]

FORMAT = "diffsep-jax 1"
DEFAULT_FAMILY = "waveform"
"""The family of files that do not name one."""

_NOT_STORED = {"compute"}  # how, not what


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparationModel:
    """Generator, conditioner and the facts about audio that they were trained with.

    Attributes:
        generator: the network that predicts the velocity.
        conditioner: the network that reads the mixture.
        segment: samples of a chunk.
        sample_rate: Hz.
        target_rms: level that the mixture is brought to, one gain per track (ours: the paper does
            not give its data's scale; near 0.1, as audio comes, most noise levels hold no signal).
        estimate_error: RMS error that the direct estimate is taken to have, at `target_rms`; the
            generator then predicts a correction to the velocity that the estimate implies, see
            `precondition` (ours). None = the generator's output is the velocity, as in the paper.
        compute: precision, attention and rematerialisation; no part of an exported model.
    """

    generator: AnyGenerator
    conditioner: AnyConditioner
    segment: int = 131_072
    sample_rate: int = 44_100
    target_rms: float = 1.0
    estimate_error: float | None = None
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        networks = (("generator", self.generator), ("conditioner", self.conditioner))
        for name, network in networks:
            network.check()
            if not is_whole(self.segment) or self.segment % network.stride:
                raise UserError(
                    f"segment is {self.segment!r} samples; a positive multiple of the {name}'s"
                    f" stride of {network.stride} is expected"
                )
        self._check_fit()
        rate, rms, error = self.sample_rate, self.target_rms, self.estimate_error
        require(is_whole(rate), "sample_rate", rate, "a positive whole number of Hz")
        require(is_positive(rms), "target_rms", rms, "a positive, finite level")
        good = error is None or is_positive(error)
        require(good, "estimate_error", error, "a positive, finite level or None")
        if self.family.preconditioned:
            networks_are = f"with {family_name(self.generator)} networks,"
            require(rms == 1, "target_rms", rms, f"1, {networks_are}")
            require(error is None, "estimate_error", error, f"None, {networks_are}")

    @property
    def family(self) -> Family:
        """What is particular to the family of the networks."""
        return FAMILIES[family_name(self.generator)]

    @property
    def min_overlap(self) -> int:
        """Samples that chunks must overlap by: what a network sees of where its chunk ends."""
        return self.family.min_overlap

    @property
    def bands(self) -> BandGroups:
        """Of the spectral family."""
        assert isinstance(self.generator, SpectralGenerator)
        return self.generator.bands

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh float32 parameters of both networks, every head included."""
        generator_key, conditioner_key = jax.random.split(key)
        # No parameter depends on the length or on `compute`: one frame of the bottleneck will do.
        length = math.lcm(self.generator.stride, self.conditioner.stride)
        audio = jnp.zeros((1, length, 2))
        conditioning, variables = self.conditioner.init_with_output(
            conditioner_key, audio, with_latent=True
        )
        conditioner = variables["params"]
        generator = self.generator.init(generator_key, audio, jnp.zeros((1,)), audio, conditioning)[
            "params"
        ]
        return {"generator": generator, "conditioner": conditioner}

    def condition(
        self, params: Params, mixture: Float[Array, "batch time 2"], *, with_latent: bool = False
    ) -> Conditioning:
        """Runs the conditioner: once per chunk."""
        variables = {"params": params["conditioner"]}
        return cast(
            Conditioning,
            self.conditioner.apply(
                variables, mixture, with_latent=with_latent, compute=self.compute
            ),
        )

    def velocity(
        self,
        params: Params,
        x: Float[Array, "batch time 2"],
        sigma: Float[Array, "batch"],
        mixture: Float[Array, "batch time 2"],
        conditioning: Conditioning,
    ) -> Float[Array, "batch time 2"]:
        """v_hat = m(x_sigma, sigma, c) of equation (3), in float32.

        The direct estimate enters without a gradient: L_rec alone trains it.
        """
        conditioning = conditioning._replace(estimate=jax.lax.stop_gradient(conditioning.estimate))
        variables = {"params": params["generator"]}
        output = cast(
            Array,
            self.generator.apply(variables, x, sigma, mixture, conditioning, compute=self.compute),
        )
        if self.estimate_error is None:
            return output
        return precondition(output, x, sigma, conditioning.estimate, self.estimate_error)

    def _check_fit(self) -> None:
        """UserError unless the generator reads what the conditioner gives."""
        families = family_name(self.generator), family_name(self.conditioner)
        if families[0] != families[1]:
            raise UserError(
                f"the generator is {families[0]} and the conditioner is {families[1]}; networks of"
                " one family are expected"
            )
        read, given = map(self.family.interface_of, (self.generator, self.conditioner))
        if read != given:
            raise UserError(
                f"the generator's {self.family.interface} are {read}, the conditioner's {given};"
                " they must be the same"
            )


def precondition(
    output: Float[Array, "batch time channel"],
    x: Float[Array, "batch time channel"],
    sigma: Float[Array, "batch"],
    estimate: Float[Array, "batch time channel"],
    error: float,
) -> Float[Array, "batch time channel"]:
    """The velocity that the direct estimate implies, corrected by the network's output.

    If the vocals were white and Gaussian about the estimate m with standard deviation e, then, by
    equations (1) and (2) and with d^2 = alpha^2 e^2 + beta^2,

        E[v | x]   = -beta m + alpha beta (1 - e^2) / d^2 (x - alpha m)
        Std[v | x] = e / d

    The result is that mean plus that deviation times the output: an output of zero already samples
    from the Gaussian, and the output's target has about unit variance at every sigma. (The idea of
    preconditioning is Karras et al. 2022; doing it about a direct estimate is ours.)
    """
    alpha, beta = (weight[:, None, None] for weight in alpha_beta(sigma))
    variance = jnp.square(alpha) * error**2 + jnp.square(beta)
    slope = alpha * beta * (1 - error**2) / variance
    implied = slope * (x - alpha * estimate) - beta * estimate
    return implied + error * jax.lax.rsqrt(variance) * output


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
