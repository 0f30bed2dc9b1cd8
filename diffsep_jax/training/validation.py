"""What a run tells of itself: loss per noise level, and utterance SDR of validation segments."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from diffsep_jax import diffusion, losses, metrics, samplers
from diffsep_jax.separation_model import Params, SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.step import Batch

NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def make_validate(
    model: SeparationModel, config: TrainConfig, key: PRNGKeyArray
) -> Callable[[Params, Sequence[Batch]], dict[str, float]]:
    """A function of (parameters, batches) that returns the numbers of one validation.

    `loss_sigma_S` is L_diff at noise level S; `utterance_sdr_mixture`, `_direct` and `_ddim` are
    medians over the segments, each scored as if it were a track, for the mixture, the L_rec head
    and DDIM (eta = 0). The noise is the same each time. Segments with silent vocals are left out
    of the SDR.
    """

    @jax.jit
    def losses_by_level(params: Params, batch: Batch) -> Float[Array, "level"]:
        vocals, mixture = batch["vocals"], batch["mixture"]
        noise = jax.random.normal(key, vocals.shape)
        conditioning = model.condition(params, mixture)

        def at_level(sigma: Array) -> Array:
            x = diffusion.diffuse(vocals, noise, sigma)
            sigmas = jnp.broadcast_to(sigma, vocals.shape[:1])
            v_hat = model.velocity(params, x, sigmas, mixture, conditioning)
            v = diffusion.velocity(vocals, noise, sigma)
            return losses.diffusion_loss(v_hat, v).mean()

        return jax.lax.map(at_level, jnp.array(NOISE_LEVELS, jnp.float32))

    @jax.jit
    def separate(params: Params, mixture: Array) -> tuple[Array, Array]:
        conditioning = model.condition(params, mixture)

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        noise = jax.random.normal(key, mixture.shape)
        steps = config.validation_sampler_steps
        return conditioning.estimate, samplers.ddim(velocity, noise, key, num_steps=steps)

    def validate(params: Params, batches: Sequence[Batch]) -> dict[str, float]:
        levels = []
        scores: dict[str, list[float]] = {"mixture": [], "direct": [], "ddim": []}
        for raw in batches:
            batch = {name: audio * model.target_rms for name, audio in raw.items()}
            levels.append(np.asarray(losses_by_level(params, batch)))
            direct, ddim = separate(params, batch["mixture"])
            vocals = np.asarray(batch["vocals"])
            estimates = {"mixture": batch["mixture"], "direct": direct, "ddim": ddim}
            for name, estimate in estimates.items():
                pairs = zip(vocals, np.asarray(estimate), strict=True)
                scores[name] += [metrics.sdr(v, e) for v, e in pairs if not metrics.is_silent(v)]
        report = {
            f"loss_sigma_{level}": float(value)
            for level, value in zip(NOISE_LEVELS, np.mean(levels, axis=0), strict=True)
        }
        medians = {f"utterance_sdr_{name}": float(np.median(s)) for name, s in scores.items() if s}
        return report | medians

    return validate
