"""Floating-point operations of a function: those of matrix products and convolutions.

A multiply-add counts as two operations; elementwise work, reductions and Fourier transforms count
as none. The count is taken from JAX's own program (the jaxpr), not from the compiled one: the
compiler counts a loop's body once and does not look into Pallas kernels. Tracing computes nothing
and allocates nothing, whatever the sizes.

Model FLOPs are what the mathematics needs: nothing computed twice, attention in full. They are the
numerator of the model-FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from diffsep_jax.models.conditioner import Conditioner
from diffsep_jax.models.generator import Generator
from diffsep_jax.separation_model import Network, SeparationModel
from diffsep_jax.training.config import Freeze, TrainConfig
from diffsep_jax.training.step import gradients_of_rows

PARTS_OF_TRAINING = 3
"""Products of a training step per product of the forward pass: it, and one for each factor's
gradient."""


def count_flops(function: Callable[..., Any], *args: Any, while_trips: int = 1) -> float:
    """Operations of `function(*args)`, of all devices together; `args` may be abstract.

    A scan counts as often as it runs, a Pallas kernel once for each cell of its grid, a shard_map
    once for each device of its mesh, a conditional as its largest branch. How often a while loop
    runs is not written in the program: `while_trips` is taken for each of them, and one for a loop
    around another (an ensemble's, of one member).
    """
    return float(_flops(jax.make_jaxpr(function)(*args).jaxpr, while_trips))


def train_step_flops(model: SeparationModel, batch_size: int, freeze: Freeze = "none") -> float:
    """Model FLOPs of a training step: the loss and its gradients, nothing rematerialised."""
    model = _as_written(model)
    audio, params = _abstract(model, batch_size)
    gradients = functools.partial(gradients_of_rows, model, TrainConfig(freeze=freeze))
    sigma = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    return count_flops(gradients, params, {"mixture": audio, "vocals": audio}, sigma, audio)


def sampling_flops(model: SeparationModel, batch_size: int, steps: int) -> float:
    """Model FLOPs of a batch of chunks: the conditioner once, the generator `steps` times."""
    model = _as_written(model)
    audio, params = _abstract(model, batch_size)
    sigma = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    conditioning = jax.eval_shape(model.condition, params, audio)
    conditioner = count_flops(model.condition, params, audio)
    generator = count_flops(model.velocity, params, audio, sigma, audio, conditioning)
    return conditioner + steps * generator


def attention_flops(network: Network, segment: int) -> float:
    """Operations of the attention in one forward pass over one segment: 4 T^2 width a layer."""
    if not isinstance(network, Generator | Conditioner):
        return 0.0  # spectral networks have none

    def layer(positions: int, width: int) -> int:
        return 4 * positions**2 * width

    levels = range(len(network.factors) - network.attention_levels, len(network.factors))
    total = 0
    for level in levels:
        positions = segment // (network.patch_size * math.prod(network.factors[:level]))
        total += 2 * layer(positions, network.attention_width)  # encoder and decoder
    if isinstance(network, Conditioner):
        bottleneck = layer(segment // network.stride, network.transformer_width)
        total += network.transformer_layers * bottleneck
    return float(total)


def _as_written(model: SeparationModel) -> SeparationModel:
    """The model with nothing computed twice, no loops or kernels, convolutions by definition."""
    compute = dataclasses.replace(
        model.compute, attention="plain", convolution="native", remat="none"
    )
    return dataclasses.replace(model, compute=compute)


def _abstract(model: SeparationModel, batch_size: int) -> tuple[jax.ShapeDtypeStruct, Any]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    audio = jax.ShapeDtypeStruct((batch_size, model.segment, 2), jnp.float32)
    return audio, jax.eval_shape(model.init, key)


def _flops(jaxpr: Jaxpr, while_trips: int) -> int:
    return sum(_equation_flops(equation, while_trips) for equation in jaxpr.eqns)


def _equation_flops(equation: Any, while_trips: int) -> int:
    params = equation.params
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * equation.outvars[0].aval.size * terms
    if name == "conv_general_dilated":
        # Positions beyond the ends count as if they were data.
        kernel = equation.invars[1].aval
        terms = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * terms
    inner = [_flops(jaxpr, while_trips) for jaxpr in _inner_jaxprs(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * _repetitions(name, params, while_trips)


def _repetitions(name: str, params: dict[str, Any], while_trips: int) -> int:
    if name == "scan":
        return params["length"]
    if name == "while":
        return 1 if any(map(_has_while, _inner_jaxprs(params))) else while_trips
    if name == "shard_map":
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _has_while(jaxpr: Jaxpr) -> bool:
    return any(
        equation.primitive.name == "while" or any(map(_has_while, _inner_jaxprs(equation.params)))
        for equation in jaxpr.eqns
    )


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each
