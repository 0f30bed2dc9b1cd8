"""A separation model: the two networks and how their outputs are read as a velocity.

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
from diffsep_jax.models.conditioner import Conditioner, Conditioning
from diffsep_jax.models.fields import is_positive, is_whole, require
from diffsep_jax.models.generator import Generator
from diffsep_jax.models.spectral.bands import BandGroups
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.models.spectral.transform import FRAME

Params = Mapping[str, Any]
Network = Generator | SpectralGenerator | Conditioner | SpectralConditioner


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

    generator: Generator | SpectralGenerator
    conditioner: Conditioner | SpectralConditioner
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
        _check_fit(self.generator, self.conditioner)
        rate, rms, error = self.sample_rate, self.target_rms, self.estimate_error
        require(is_whole(rate), "sample_rate", rate, "a positive whole number of Hz")
        require(is_positive(rms), "target_rms", rms, "a positive, finite level")
        good = error is None or is_positive(error)
        require(good, "estimate_error", error, "a positive, finite level or None")
        if isinstance(self.generator, SpectralGenerator):
            # The compression of coefficients and the range of the error's scale depend on it.
            require(rms == 1, "target_rms", rms, "1, with spectral networks,")
            require(error is None, "estimate_error", error, "None, with spectral networks,")

    @property
    def min_overlap(self) -> int:
        """Samples that chunks must overlap by: what a network sees of where its chunk ends."""
        return 2 * FRAME if isinstance(self.generator, SpectralGenerator) else 0

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
        arguments = self._generator_arguments(audio, jnp.zeros((1,)), audio, conditioning)
        generator = self.generator.init(generator_key, *arguments)["params"]
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
        arguments = self._generator_arguments(x, sigma, mixture, conditioning)
        variables = {"params": params["generator"]}
        output = cast(Array, self.generator.apply(variables, *arguments, compute=self.compute))
        if self.estimate_error is None:
            return output
        return precondition(output, x, sigma, conditioning.estimate, self.estimate_error)

    def _generator_arguments(
        self, x: Array, sigma: Array, mixture: Array, conditioning: Conditioning
    ) -> tuple[Any, ...]:
        if isinstance(self.generator, SpectralGenerator):
            return x, sigma, mixture, conditioning
        return x, sigma, conditioning.embeddings, mixture, conditioning.estimate


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


def _check_fit(generator: Any, conditioner: Any) -> None:
    """UserError unless the generator reads what the conditioner gives."""
    spectral = isinstance(generator, SpectralGenerator)
    if spectral != isinstance(conditioner, SpectralConditioner):
        raise UserError(
            f"the generator is a {type(generator).__name__} and the conditioner a"
            f" {type(conditioner).__name__}; both must be spectral, or neither"
        )
    what, of = ("bands", lambda n: n.bands) if spectral else ("injection levels", _injection_rates)
    if of(generator) != of(conditioner):
        raise UserError(
            f"the generator's {what} are {of(generator)}, the conditioner's {of(conditioner)};"
            " they must be the same"
        )


def _injection_rates(network: Generator | Conditioner) -> list[int]:
    """Samples per frame of each injection level, shallowest first."""
    strides = [network.patch_size]
    for factor in network.factors[:-1]:
        strides.append(strides[-1] * factor)
    return strides[len(strides) - network.injection_levels :]
