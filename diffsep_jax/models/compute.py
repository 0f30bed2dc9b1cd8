"""How the networks are computed: speed, memory and rounding, but not the function itself."""

import dataclasses
from typing import Literal, TypeVar, get_args

import flax.linen as nn
import jax

from diffsep_jax.errors import UserError
from diffsep_jax.models.attention import Backend
from diffsep_jax.models.convolution import Convolution
from diffsep_jax.models.fields import require
from diffsep_jax.models.layers import PRODUCT
from diffsep_jax.models.splash import ATTENTION
from diffsep_jax.runtime import Dtype

Remat = Literal["none", "dots", "full"]
M = TypeVar("M", bound=type[nn.Module])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Options that a run may change at any time; parameters are always float32.

    Attributes:
        dtype: type of activations and products. Sums over time, softmax, the output layers and
            the losses are always float32.
        attention: see `diffsep_jax.models.attention`.
        convolution: see `diffsep_jax.models.convolution`.
        remat: what the backward pass recomputes instead of keeping, besides the Wiener filter.
            `none`: nothing; `dots`: everything in a block but its convolutions, matrix products and
            attention; `full`: everything in a block. Blocks are the residual blocks and the
            attention layers.
    """

    dtype: Dtype = "float32"
    attention: Backend = "auto"
    convolution: Convolution = "auto"
    remat: Remat = "none"

    def __post_init__(self) -> None:
        for name, kind in (
            ("dtype", Dtype),
            ("attention", Backend),
            ("convolution", Convolution),
            ("remat", Remat),
        ):
            value, choices = getattr(self, name), get_args(kind)
            require(value in choices, f"compute.{name}", value, f"one of {', '.join(choices)}")
        if self.attention == "cudnn" and self.dtype == "float32":
            raise UserError(
                "compute.attention is cudnn, which computes in bfloat16, and compute.dtype is"
                " float32; expected bfloat16, or another attention"
            )

    def block(self, module: M) -> M:
        """The module class, rematerialised as `remat` says."""
        if self.remat == "none":
            return module
        policy = (
            _keep_products if self.remat == "dots" else jax.checkpoint_policies.nothing_saveable
        )
        return nn.remat(module, policy=policy)


DEFAULT = Compute()

_keep_products = jax.checkpoint_policies.save_only_these_names(ATTENTION, PRODUCT)
