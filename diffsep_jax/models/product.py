"""The product of activations with a matrix, its gradient written as the CPU computes it fastest.

`jax.lax.dot_general`'s own rule gives the matrix' gradient as the transpose of dy^T x, which XLA's
CPU compiler computes and then transposes; here it is x^T dy.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

PRODUCT = "product"
"""Name of what matrix products and convolutions give, for rematerialisation policies."""


def named_product(x: Array) -> Array:
    """`x`, known to rematerialisation policies as `PRODUCT`."""
    return checkpoint_name(x, PRODUCT)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """`[..., channel]` with `[channel, out]` to `[..., out]`."""
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x, kernel)


def _backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = operands
    positions = tuple(range(x.ndim - 1))
    of_x = lax.dot_general(gradient, kernel, (((x.ndim - 1,), (1,)), ((), ())))
    of_kernel = lax.dot_general(x, gradient, ((positions, positions), ((), ())))
    return of_x, of_kernel


_product.defvjp(_forward, _backward)


def product(x: Array, kernel: Array) -> Array:
    """`[..., channel]` with `[channel, out]` to `[..., out]`, in the inputs' type."""
    return named_product(_product(x, kernel))


def _flax_dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    return product(x, kernel)


class _KnownParams:
    """Mixed into a linen module: a parameter that is there is taken as it is."""

    @nn.nowrap
    def param(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        return super().param(name, *args, **kwargs)  # type: ignore[misc]


def with_known_params(module: type[nn.Module]) -> Any:
    """The module class without Flax's comparison of the shapes of parameters that are there.

    Flax traces the initialiser of each once more for it: a third of all tracing time. The
    parameters of a file are compared when it is loaded.
    """
    return type(module.__name__, (_KnownParams, module), {"__module__": __name__})


Dense = functools.partial(with_known_params(nn.Dense), dot_general=_flax_dot_general)
"""`flax.linen.Dense` with this product."""
