"""AdamW or Muon, linear warm-up, a decay of the learning rate, clipping by the global norm."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from diffsep_jax.errors import UserError

Method = Literal["adamw", "muon"]
Schedule = Literal["cosine", "constant"]

COOL_DOWN = 0.1
"""Length of the cool-down, as a share of the run's steps."""

_EDGES = (
    *("embed_", "mask_", "hidden_", "out_", "scale"),
    *("conv_in", "conv_out", "estimate_head", "latent_head"),
)
"""Name prefixes of input and output layers, which Muon leaves to Adam."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The paper gives AdamW, weight decay 1e-3, linear warm-up then cosine; the rest is ours.

    Attributes:
        method: "adamw", or "muon" (ours): the momentum of each matrix inside the networks is made
            orthogonal (Jordan et al. 2024) and scaled to the size of Adam's steps (Liu et al.
            2025); the layers next to the audio, biases and scales take Adam's steps, with Nesterov
            momentum.
        learning_rate: peak, after the warm-up.
        warmup_steps: steps of linear warm-up from 0.
        schedule: what follows the warm-up. "cosine" falls until the end of the run. "constant"
            (ours) stays at the peak, then cools down over the last tenth by 1 - sqrt(progress)
            (Haegele et al. 2024), so that a run can be extended: the rate rises again.
        weight_decay: decoupled; applied to matrices and kernels only.
        b1: decay of the first moment.
        b2: decay of the second moment.
        momentum: decay of Muon's momentum.
        clip_norm: largest global norm of the gradients.
    """

    method: Method = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 10_000
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    momentum: float = 0.95
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{name} is {getattr(self, name)}; expected at least 0 and less than 1"
                )


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Step -> learning rate: up over the warm-up, then as `OptimizerConfig.schedule` says."""
    peak = config.learning_rate
    warmup_steps = min(config.warmup_steps, max(num_steps - 1, 0))
    first = peak / (warmup_steps + 1)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            first, peak, warmup_steps, decay_steps=max(num_steps, 1)
        )
    length = max(1, round(COOL_DOWN * num_steps))

    def cool_down(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, jnp.float32) / length, 0.0, 1.0)
        return peak * (1 - jnp.sqrt(progress))

    return optax.join_schedules(
        [
            optax.linear_schedule(first, peak, warmup_steps),
            optax.constant_schedule(peak),
            cool_down,
        ],
        [warmup_steps, max(warmup_steps, num_steps - length)],
    )


def make_optimizer(
    config: OptimizerConfig, num_steps: int, freeze: str = "none"
) -> optax.GradientTransformation:
    """The transformation for parameters `{"generator": ..., "conditioner": ...}`.

    The parameters of the network `freeze` do not change.
    """

    def stop_frozen(updates: dict, _: object) -> dict:
        return {
            name: jax.tree.map(jnp.zeros_like, each) if name == freeze else each
            for name, each in updates.items()
        }

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        direction(config, freeze),
        optax.add_decayed_weights(
            config.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        ),
        optax.stateless(stop_frozen),
        optax.scale_by_learning_rate(learning_rate_schedule(config, num_steps)),
    )


def direction(config: OptimizerConfig, freeze: str = "none") -> optax.GradientTransformation:
    """From gradients to ascent steps of about unit size: Adam, or Muon with Adam."""
    if config.method == "adamw":
        return optax.scale_by_adam(config.b1, config.b2)
    return optax.contrib.muon(
        learning_rate=-1.0,  # ascent: scale_by_learning_rate negates
        beta=config.momentum,
        consistent_rms=0.2,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=functools.partial(_inner_matrices, freeze=freeze),
    )


def _inner_matrices(params: Any, freeze: str) -> Any:
    """How Muon reshapes each parameter: all axes but the last are rows. None leaves it to Adam.

    `params` are those of `{"generator": ..., "conditioner": ...}`, or of one of them.
    """

    def view(path: tuple[Any, ...], leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        network, module, *_ = names = [key.key for key in path]
        assert network in ("generator", "conditioner"), names
        inner = names[-1] in ("kernel", "mix") and not module.startswith(_EDGES)
        if leaf.ndim < 2 or not inner or network == freeze:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(view, params)
