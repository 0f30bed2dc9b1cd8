"""The training state and one optimisation step: pure functions, compiled for a mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffsep_jax import diffusion, losses
from diffsep_jax.errors import UserError
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.models.spectral.generator import gaussian_velocity
from diffsep_jax.models.spectral.transform import mdct
from diffsep_jax.noise import key_of
from diffsep_jax.runtime import CHIPS, count_flops
from diffsep_jax.samplers import adams_bashforth_2
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import make_optimizer
from diffsep_jax.training.sharding import (
    BATCH_SPEC,
    MESH_AXES,
    batch_sharding,
    gather,
    mean_and_scatter,
    state_sharding,
    with_shardings,
)

Batch = dict[str, Float[Array, "batch time 2"]]
Metrics = dict[str, Array]


# A mixture below -60 dB of the level that the model is trained for counts as silent.
_SILENCE_RMS = 1e-3


class TrainState(NamedTuple):
    """Everything that a checkpoint holds; all float32 but the step."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimizer: Any


def run_keys(seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray]:
    """A run's keys: for the first state, for the steps, for validation."""
    init, step, validation = jax.random.split(key_of(seed), 3)
    return init, step, validation


class TrainProgram(NamedTuple):
    """A run's jitted functions, which can also be lowered without arrays, for absent devices.

    Attributes:
        state: shapes, types and shardings of the training state.
        init: key -> the state before the first step.
        step: (state, batch, key) -> (state, metrics); the state is donated.
    """

    state: TrainState
    init: Any
    step: Any


def train_program(model: SeparationModel, config: TrainConfig, mesh: Mesh) -> TrainProgram:
    """The program of a run on `mesh`. Raises UserError if the loss does not fit the segment."""
    if model.segment % (blocks := config.loss_weights.log_blocks):
        raise UserError(
            f"loss weight log_blocks is {blocks}; expected a divisor of the segment"
            f" of {model.segment} samples"
        )
    optimizer = make_optimizer(config.optimizer, config.num_steps, config.freeze)

    def init(key: PRNGKeyArray) -> TrainState:
        params = model.init(key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            optimizer=optimizer.init(params),
        )

    abstract = jax.eval_shape(init, key_of(0))
    shardings = state_sharding(abstract, mesh, config.mesh.min_shard_size)
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings.params)
    step = functools.partial(train_step, model, config, optimizer, mesh, specs)
    everywhere = NamedSharding(mesh, P())
    return TrainProgram(
        state=with_shardings(abstract, shardings),
        init=jax.jit(init, out_shardings=shardings),
        step=jax.jit(
            step,
            in_shardings=(shardings, batch_sharding(mesh), everywhere),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
        ),
    )


def step_arguments(
    program: TrainProgram, model: SeparationModel, mesh: Mesh, batch_size: int
) -> tuple[Any, Any, Any]:
    """The step's arguments without data: shapes, types and shardings, to lower it with."""
    audio = jax.ShapeDtypeStruct(
        (batch_size, model.segment, 2), jnp.float32, sharding=batch_sharding(mesh)
    )
    key = jax.eval_shape(lambda: key_of(0))
    return program.state, {"mixture": audio, "vocals": audio}, key


def train_step(
    model: SeparationModel,
    config: TrainConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    param_specs: Any,
    state: TrainState,
    batch: Batch,
    key: PRNGKeyArray,
) -> tuple[TrainState, Metrics]:
    """One step on a global batch of `mixture` and `vocals`, both `[batch, time, 2]`.

    The batch comes from songs whose mixtures have unit RMS, one gain for a whole song.
    Randomness is fold_in(key, step), and fold_in(that, row) for an example's noise: it depends
    neither on the mesh and the micro-batches nor on where the run was interrupted.

    Each device works on its own rows. The only communication: one all-gather of each parameter
    that `param_specs` splits, one reduction of each gradient, and scalars.
    """
    sigma_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step))
    sigma = draw_noise_levels(sigma_key, batch["vocals"].shape[0], config)

    def on_device(params: Params, batch: Batch, sigma: Array) -> tuple[Params, Metrics]:
        params = gather(params, param_specs)
        first_row = jax.lax.axis_index(MESH_AXES) * sigma.shape[0]
        rows = first_row + jnp.arange(sigma.shape[0], dtype=jnp.int32)
        noise = draw_noise(noise_key, rows, batch["vocals"].shape[1:])
        gradients, metrics = gradients_of_rows(
            model, config, params, batch, sigma, noise, state.step
        )
        scalars = jax.tree.map(lambda _: P(), metrics)
        return mean_and_scatter((gradients, metrics), (param_specs, scalars))

    gradients, metrics = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(param_specs, BATCH_SPEC, BATCH_SPEC),
        out_specs=(param_specs, P()),
        check_vma=False,  # the attention kernels do not declare how their outputs vary
    )(state.params, batch, sigma)

    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its integer count with floats
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    half_life = config.ema_half_life * (1 + state.step.astype(jnp.float32))
    decay = jnp.minimum(config.ema_decay, jnp.exp2(-1 / half_life))
    # In this form the average of an unchanged parameter stays bitwise constant.
    ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), state.ema, params)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    return TrainState(state.step + 1, params, ema, optimizer_state), metrics


def gradients_of_rows(
    model: SeparationModel,
    config: TrainConfig,
    params: Params,
    batch: Batch,
    sigma: Float[Array, "batch"],
    noise: Float[Array, "batch time 2"],
    step: Int[Array, ""],
) -> tuple[Params, Metrics]:
    """Mean gradients and losses of one device's rows, in `config.micro_batches` parts in turn."""

    def gradients_of(part: tuple[Batch, Array, Array]) -> tuple[Params, Metrics]:
        function = jax.value_and_grad(functools.partial(mean_loss, model, config), has_aux=True)
        (_, metrics), gradients = function(params, *part, step)
        return gradients, metrics

    count = config.micro_batches
    if count == 1:
        return gradients_of((batch, sigma, noise))
    parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), (batch, sigma, noise))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients_of(part)), None

    shapes = jax.eval_shape(gradients_of, jax.tree.map(lambda a: a[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda a: a / count, total)


def mean_loss(
    model: SeparationModel,
    config: TrainConfig,
    params: Params,
    batch: Batch,
    sigma: Float[Array, "batch"],
    noise: Float[Array, "batch time 2"],
    step: Int[Array, ""],
) -> tuple[Array, Metrics]:
    """The loss to minimise, and metrics: it and its terms. Silent mixtures count as loss 0."""
    batch = {name: audio * model.target_rms for name, audio in batch.items()}
    # Near silence has next to no variance: each GroupNorm multiplies its gradient, in the end to
    # infinity. Such an example contributes no loss and no gradient.
    silent = jnp.mean(jnp.square(batch["mixture"]), axis=(1, 2)) < _SILENCE_RMS**2
    batch["mixture"] = jnp.where(silent[:, None, None], noise, batch["mixture"])
    total, terms = example_losses(model, config, params, batch, sigma, noise, step)
    each = {"loss": total, **terms}
    metrics = {name: jnp.where(silent, 0.0, values).mean() for name, values in each.items()}
    return metrics["loss"], metrics


def example_losses(
    model: SeparationModel,
    config: TrainConfig,
    params: Params,
    batch: Batch,
    sigma: Float[Array, "batch"],
    noise: Float[Array, "batch time 2"],
    step: Int[Array, ""],
) -> tuple[Float[Array, "batch"], dict[str, Float[Array, "batch"]]]:
    """L_diff of equation (3) and the conditioner's losses, per example: weighted sum and terms.

    The losses of a frozen network are left out, and a frozen generator is never evaluated. `step`
    chooses among `config.unrolled_steps`.
    """
    weights, vocals, mixture = config.loss_weights, batch["vocals"], batch["mixture"]
    with_latent = config.freeze != "conditioner" and weights.latent > 0
    conditioning = model.condition(params, mixture, with_latent=with_latent)
    terms: dict[str, Array] = {}
    total = jnp.zeros(vocals.shape[0])
    if config.freeze == "conditioner":
        conditioning = jax.lax.stop_gradient(conditioning)
    else:
        estimate = conditioning.estimate
        terms["reconstruction"] = losses.reconstruction_term(estimate, vocals, weights)
        total += weights.reconstruction * terms["reconstruction"]
        if conditioning.latent_estimate is not None:
            latent = losses.mean_square_error(conditioning.latent_estimate, vocals)
            terms["latent"] = latent
            total += weights.latent * latent
        if conditioning.log_scale is not None:
            error = jax.lax.stop_gradient(mdct(vocals - estimate))
            terms["scale"] = losses.scale_loss(error, conditioning.log_scale)
            total += weights.scale * terms["scale"]
    if config.freeze != "generator":
        x = diffusion.diffuse(vocals, noise, sigma)
        v = diffusion.velocity(vocals, noise, sigma)
        v_hat = model.velocity(params, x, sigma, mixture, conditioning)
        terms["diffusion"] = losses.mean_square_error(v_hat, v)
        share = weights.normalised if conditioning.log_scale is not None else 0.0
        total += (1 - share) * terms["diffusion"]
        if share:
            gaussian = gaussian_velocity(x, sigma, conditioning)
            deviation = jax.lax.stop_gradient(gaussian.deviation)
            target = jax.lax.stop_gradient(gaussian.mean - mdct(v)) / deviation
            error = mdct(v_hat - v) / deviation
            terms["normalised"] = losses.normalised_loss(error, target)
            total += share * terms["normalised"]
    if config.unrolled_steps:
        sample = unrolled_sample(model, config, params, mixture, conditioning, noise, step)
        terms["sample"] = losses.reconstruction_term(sample, vocals, weights)
        scale = losses.MUSIC_RMS / model.target_rms
        terms["spectra"] = losses.log_spectral_distance(scale * sample, scale * vocals)
        total += weights.sample * terms["sample"] + weights.spectra * terms["spectra"]
    return total, terms


def unrolled_sample(
    model: SeparationModel,
    config: TrainConfig,
    params: Params,
    mixture: Float[Array, "batch time 2"],
    conditioning: Conditioning,
    noise: Float[Array, "batch time 2"],
    step: Int[Array, ""],
) -> Float[Array, "batch time 2"]:
    """Vocals sampled from `noise`, in one of `config.unrolled_steps` in turn."""
    velocity = model.velocity_fn(params, mixture, conditioning)
    draws = [
        functools.partial(
            adams_bashforth_2, velocity, steps=steps, schedule=config.unrolled_schedule
        )
        for steps in config.unrolled_steps
    ]
    return jax.lax.switch(step % len(draws), draws, noise)


def draw_noise_levels(
    key: PRNGKeyArray, batch_size: int, config: TrainConfig
) -> Float[Array, "batch"]:
    """sigma of each example; see `TrainConfig`."""
    uniform = jax.random.uniform(key, (batch_size,), jnp.float32)
    if config.stratified_sigma:
        order = jax.random.permutation(jax.random.fold_in(key, 1), batch_size)
        uniform = (order.astype(jnp.float32) + uniform) / batch_size
    if config.sigma_distribution == "uniform":
        return uniform
    # The quantile function of "few_steps": a fifth at 1, then 0.4 uniform and 0.4 cubed.
    rest = [(uniform - start) / 0.4 for start in (0.2, 0.6)]
    sigma = jnp.where(uniform < 0.6, rest[0], rest[1] ** 3)
    return jnp.where(uniform < 0.2, 1.0, jnp.maximum(sigma, 1e-3))


def draw_noise(
    key: PRNGKeyArray, rows: Int[Array, "batch"], shape: tuple[int, ...]
) -> Float[Array, "batch time 2"]:
    """Standard normal noise for rows of the global batch, each a function of its number alone."""

    def draw(row: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, row), shape, jnp.float32)

    return jax.vmap(draw)(rows)


def as_written(model: SeparationModel) -> SeparationModel:
    """The model with plain attention, native convolutions and nothing recomputed.

    Its FLOPs are those of the mathematics, whichever way `model` is computed.
    """
    compute = dataclasses.replace(
        model.compute, attention="plain", convolution="native", remat="none"
    )
    return dataclasses.replace(model, compute=compute)


def example_flops(model: SeparationModel, config: TrainConfig) -> float:
    """FLOPs of one training example's loss and gradients. Raises RuntimeError as `count_flops`."""
    model, config = as_written(model), dataclasses.replace(config, micro_batches=1)
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    audio = jax.ShapeDtypeStruct((1, model.segment, 2), jnp.float32)
    return count_flops(
        functools.partial(gradients_of_rows, model, config),
        params,
        {"mixture": audio, "vocals": audio},
        jax.ShapeDtypeStruct((1,), jnp.float32),
        audio,
        jax.ShapeDtypeStruct((), jnp.int32),
    )


def example_seconds_at_peak(
    model: SeparationModel, config: TrainConfig, mesh: Mesh, say: Callable[[str], None]
) -> float | None:
    """Seconds that one training example takes if all chips of the mesh run at their peak.

    None if the chips' peak is not known, or if FLOPs cannot be counted, which `say` reports.
    """
    chip = CHIPS.get(mesh.devices.flat[0].device_kind)
    if chip is None:
        return None
    try:
        return example_flops(model, config) / (chip.flops * mesh.size)
    except RuntimeError:
        say(
            f"JAX_PLATFORMS is {jax.config.values['jax_platforms']}; expected it to include cpu,"
            " which counts FLOPs. The log goes without model_flops_utilisation."
        )
        return None


def describe_memory(compiled: jax.stages.Compiled) -> str:
    """One line about a compiled program's memory on each device."""
    memory: Any = compiled.memory_analysis()
    if memory is None:
        return "memory of a step: not reported by the compiler"
    state, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return (
        f"memory of a step on each device: {state / 2**20:,.0f} MiB of arguments (state and"
        f" batch), {temporaries / 2**20:,.0f} MiB of temporaries"
    )
