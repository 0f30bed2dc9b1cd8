"""AdamW with linear warm-up, cosine decay and clipping by the global norm."""

import dataclasses

import jax
import optax

from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The paper gives AdamW, weight decay 1e-3, linear warm-up then cosine; the rest is ours.

    Attributes:
        learning_rate: peak, after the warm-up.
        warmup_steps: steps of linear warm-up from 0.
        final_learning_rate_ratio: end of the cosine, as a share of the peak.
        generator_learning_rate_ratio: the generator's learning rate, as a multiple of the
            conditioner's.
        weight_decay: decoupled; applied to matrices and kernels only.
        b1: decay of the first moment.
        b2: decay of the second moment.
        clip_norm: largest global norm of the gradients.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 10_000
    final_learning_rate_ratio: float = 0.0
    generator_learning_rate_ratio: float = 1.0
    weight_decay: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "generator_learning_rate_ratio", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; a positive number is expected")
        for name in ("warmup_steps", "final_learning_rate_ratio", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}; 0 or more is expected")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; 0 <= {name} < 1 is expected")


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Step -> learning rate: up over the warm-up, down along a cosine until `num_steps`."""
    peak = config.learning_rate
    warmup_steps = min(config.warmup_steps, max(num_steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (warmup_steps + 1),
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(num_steps, 1),
        end_value=peak * config.final_learning_rate_ratio,
    )


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """The transformation for parameters `{"generator": ..., "conditioner": ...}`."""

    def scale_generator(updates: dict, _: object) -> dict:
        ratio = config.generator_learning_rate_ratio
        return {**updates, "generator": jax.tree.map(lambda u: u * ratio, updates["generator"])}

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2),
        optax.add_decayed_weights(
            config.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        ),
        optax.stateless(scale_generator),
        optax.scale_by_learning_rate(learning_rate_schedule(config, num_steps)),
    )
