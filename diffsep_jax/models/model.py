"""A separation model: its two networks, its velocity, and its fields as JSON.

Training and inference both use the methods here, so they cannot disagree.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, PRNGKeyArray

from diffsep_jax.diffusion import alpha_beta
from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.fields import is_positive, require
from diffsep_jax.models.registry import (
    FAMILIES,
    AnyConditioner,
    AnyGenerator,
    Family,
    family_name,
)
from diffsep_jax.models.spectral.bands import BandGroups
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.typing import VelocityFn

Params = Mapping[str, Any]

FORMAT = "diffsep-jax 1"
DEFAULT_FAMILY = "waveform"
"""The family of files that do not name one."""


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
        compute: precision, attention and rematerialisation; not stored with the model.
    """

    generator: AnyGenerator
    conditioner: AnyConditioner
    segment: int = 131_072
    sample_rate: int = 44_100
    target_rms: float = 1.0
    estimate_error: float | None = None
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        for name, network in (("generator", self.generator), ("conditioner", self.conditioner)):
            network.check()
            good = self.segment > 0 and self.segment % network.stride == 0
            expected = f"a positive multiple of {network.stride}, the {name}'s stride in samples"
            require(good, "segment", self.segment, expected)
        self._check_fit()
        rms, error = self.target_rms, self.estimate_error
        require(self.sample_rate > 0, "sample_rate", self.sample_rate, "a positive number of Hz")
        require(is_positive(rms), "target_rms", rms, "a positive, finite level")
        good = error is None or is_positive(error)
        require(good, "estimate_error", error, "a positive, finite level or None")
        if self.family.preconditioned:
            name = family_name(self.generator)
            require(rms == 1, "target_rms", rms, f"1 for {name} networks")
            require(error is None, "estimate_error", error, f"None for {name} networks")

    @property
    def family(self) -> Family:
        """The family that the networks belong to."""
        return FAMILIES[family_name(self.generator)]

    @property
    def min_overlap(self) -> int:
        """Samples that chunks must overlap by."""
        return self.family.min_overlap

    @property
    def bands(self) -> BandGroups:
        """Bands of the networks; spectral family only."""
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

    def velocity_fn(
        self, params: Params, mixture: Float[Array, "batch time 2"], conditioning: Conditioning
    ) -> VelocityFn:
        """`velocity` as samplers call it: (x, one noise level for all examples) -> v_hat."""

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return self.velocity(params, x, sigmas, mixture, conditioning)

        return velocity

    def _check_fit(self) -> None:
        """Raises UserError unless the generator takes what the conditioner gives."""
        families = family_name(self.generator), family_name(self.conditioner)
        if families[0] != families[1]:
            raise UserError(
                f"the generator is {families[0]} and the conditioner is {families[1]}; expected"
                " networks of one family"
            )
        taken, given = map(self.family.interface_of, (self.generator, self.conditioner))
        what = self.family.interface
        require(taken == given, f"generator {what}", taken, f"{given}, the conditioner's")


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
    """The model's fields as JSON values, without `compute`."""
    values: dict[str, Any] = {"format": FORMAT}
    if (family := family_name(model.generator)) != DEFAULT_FAMILY:
        values["family"] = family
    for field in _stored_fields(SeparationModel):
        value = getattr(model, field.name)
        if field.name in ("generator", "conditioner"):
            value = {each.name: getattr(value, each.name) for each in _stored_fields(value)}
        values[field.name] = value
    return values


def model_from_json(values: Any) -> SeparationModel:
    """The inverse of `model_to_json`.

    Raises UserError, naming the field, for a field that is missing, unknown or of another type, or
    whose value is bad.
    """
    try:
        header = msgspec.convert(values, _Header)
        require(header.format == FORMAT, "format", header.format, repr(FORMAT))
        require(header.family in FAMILIES, "family", header.family, " or ".join(FAMILIES))
        family = FAMILIES[header.family]
        networks = {"generator": family.generator, "conditioner": family.conditioner}
        types = {name: _schema(network) for name, network in networks.items()}
        fields = {name: value for name, value in values.items() if name not in ("format", "family")}
        stored = msgspec.structs.asdict(msgspec.convert(fields, _schema(SeparationModel, **types)))
    except msgspec.ValidationError as error:
        raise UserError(f"model: {error}") from None
    for name, network in networks.items():
        stored[name] = network(**msgspec.structs.asdict(stored[name]))
    return SeparationModel(**stored)


class _Header(msgspec.Struct):
    format: str
    family: str = DEFAULT_FAMILY


def _schema(owner: Any, **types: Any) -> type[msgspec.Struct]:
    """The fields of a class that files hold, for msgspec to check; `types` in place of its own."""
    fields = [
        (
            field.name,
            types.get(field.name, field.type),
            msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default,
        )
        for field in _stored_fields(owner)
    ]
    return msgspec.defstruct(owner.__name__, fields, forbid_unknown_fields=True)


def _stored_fields(owner: Any) -> list[dataclasses.Field]:
    """All fields but Flax's own, `parent` and `name`, and `compute`, which changes no function."""
    skipped = ("parent", "name", "compute")
    return [field for field in dataclasses.fields(owner) if field.name not in skipped]
