"""How the networks are computed: changes speed, memory and rounding, not what they are."""

import dataclasses
from typing import Literal, TypeVar, get_args

import flax.linen as nn
import jax

from diffsep_jax.errors import UserError
from diffsep_jax.models.attention import Backend
from diffsep_jax.models.convolution import Convolution
from diffsep_jax.models.fields import check_choice
from diffsep_jax.models.product import PRODUCT
from diffsep_jax.models.splash import ATTENTION

Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]
M = TypeVar("M", bound=type[nn.Module])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """A run may change these at any time; parameters are float32 always.

    Attributes:
        dtype: of activations and products. Sums over time, softmax, the output layers and the
            losses are float32 in any case.
        attention: see `diffsep_jax.models.attention`.
        convolution: see `diffsep_jax.models.convolution`.
        remat: what the backward pass computes again instead of keeping it. `none`: nothing; `dots`:
            all of a block but its convolutions, matrix products and attention; `full`: all of a
            block but its input. Blocks are the residual blocks and the attention layers.
    """

    dtype: Dtype = "float32"
    attention: Backend = "auto"
    convolution: Convolution = "auto"
    remat: Remat = "none"

    def __post_init__(self) -> None:
        check_choice(self, "compute", "dtype", get_args(Dtype))
        check_choice(self, "compute", "attention", get_args(Backend))
        check_choice(self, "compute", "convolution", get_args(Convolution))
        check_choice(self, "compute", "remat", get_args(Remat))
        if self.attention == "cudnn" and self.dtype == "float32":
            raise UserError(
                "compute.attention is cudnn, which computes in bfloat16, and compute.dtype is"
                " float32; set dtype to bfloat16, or attention to auto"
            )

    def block(self, module: M) -> M:
        """The module class, its inside recomputed in the backward pass as `remat` says."""
        if self.remat == "none":
            return module
        policy = (
            _keep_products if self.remat == "dots" else jax.checkpoint_policies.nothing_saveable
        )
        return nn.remat(module, policy=policy)


DEFAULT = Compute()

_keep_products = jax.checkpoint_policies.save_only_these_names(ATTENTION, PRODUCT)
