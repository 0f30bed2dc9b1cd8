"""The training state and one optimisation step: pure functions of (state, batch, key)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffsep_jax import diffusion, losses
from diffsep_jax.separation_model import Params, SeparationModel
from diffsep_jax.training.config import TrainConfig

Batch = dict[str, Float[Array, "batch time 2"]]
Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """Everything that a checkpoint holds; all float32 but the step."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimizer: Any


def init_state(
    model: SeparationModel, optimizer: optax.GradientTransformation, key: PRNGKeyArray
) -> TrainState:
    """The state before the first step."""
    params = model.init(key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        optimizer=optimizer.init(params),
    )


def train_step(
    model: SeparationModel,
    config: TrainConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    key: PRNGKeyArray,
) -> tuple[TrainState, Metrics]:
    """One step on a global batch of `mixture` and `vocals`, both `[batch, time, 2]`.

    The batch comes from songs whose mixtures have unit RMS, one gain for a whole song.
    Randomness is fold_in(key, step) and drawn for the global batch, so it does not depend on the
    mesh or on where the run was interrupted.
    """
    sigma_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = {name: audio * model.target_rms for name, audio in batch.items()}
    sigma = draw_noise_levels(sigma_key, batch["vocals"].shape[0], config.stratified_sigma)
    noise = jax.random.normal(noise_key, batch["vocals"].shape)

    # Digital silence has no variance: each GroupNorm multiplies its gradient, to infinity in the
    # end. Such an example counts as loss 0 and teaches nothing; inference skips such chunks too.
    silent = jnp.all(batch["mixture"] == 0, axis=(1, 2))
    batch["mixture"] = jnp.where(silent[:, None, None], noise, batch["mixture"])

    def loss(params: Params) -> tuple[Array, Metrics]:
        total, terms = example_losses(model, config.loss_weights, params, batch, sigma, noise)
        means = {
            name: jnp.where(silent, 0.0, each).mean() for name, each in {"": total, **terms}.items()
        }
        return means.pop(""), means

    (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its integer count with floats
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    taken = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1 + taken) / (10 + taken))  # soon leaves the start
    ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params)
    metrics = {"loss": total, **terms, "gradient_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, params, ema, optimizer_state), metrics


def example_losses(
    model: SeparationModel,
    weights: losses.LossWeights,
    params: Params,
    batch: Batch,
    sigma: Float[Array, "batch"],
    noise: Float[Array, "batch time 2"],
) -> tuple[Float[Array, "batch"], dict[str, Float[Array, "batch"]]]:
    """L_diff of equation (3) with L_lat and L_rec, per example: the weighted sum and its terms."""
    vocals, mixture = batch["vocals"], batch["mixture"]
    conditioning = model.condition(params, mixture, with_latent=True)
    assert conditioning.latent_estimate is not None
    x = diffusion.diffuse(vocals, noise, sigma)
    v_hat = model.velocity(params, x, sigma, mixture, conditioning)
    return losses.total_loss(
        v_hat=v_hat,
        v=diffusion.velocity(vocals, noise, sigma),
        latent_estimate=conditioning.latent_estimate,
        direct_estimate=conditioning.estimate,
        vocals=vocals,
        weights=weights,
    )


def draw_noise_levels(
    key: PRNGKeyArray, batch_size: int, stratified: bool
) -> Float[Array, "batch"]:
    """sigma ~ U[0, 1] per example; stratified: one from each of `batch_size` equal intervals."""
    uniform = jax.random.uniform(key, (batch_size,))
    if not stratified:
        return uniform
    order = jax.random.permutation(jax.random.fold_in(key, 1), batch_size)
    return (order.astype(jnp.float32) + uniform) / batch_size
