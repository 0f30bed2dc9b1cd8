"""Validation during training: loss by noise level, and measures of separated segments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from diffsep_jax import diffusion, losses, metrics, samplers
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.sharding import BATCH_SPEC, MESH_AXES
from diffsep_jax.training.step import Batch, draw_noise, run_keys
from diffsep_jax.training.tensorboard import NUM_SEGMENTS

NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

_LEVEL = 0.1
"""RMS that the mixture of a song is scored at, about that of music at full scale 1."""


class Validation(NamedTuple):
    """The numbers of one validation, and what can be listened to.

    Attributes:
        report: numbers by name.
        segments: `mixture`, `vocals`, `direct` and, where the generator runs, `ddim`, the first few
            of the first batch, each `[segment, time, 2]`.
    """

    report: dict[str, float]
    segments: dict[str, np.ndarray]


def make_validate(
    model: SeparationModel, config: TrainConfig, mesh: Mesh
) -> Callable[[Params, Sequence[Batch]], Validation]:
    """A function of (parameters, batches on the mesh), to be called by every process.

    `loss_sigma_S` is L_diff at noise level S and `loss` the mean over the levels; a frozen
    generator does not run, and `loss` is then L_rec, unweighted. All else is a median over the
    segments, each scored as if it were a track, for the L_rec head (`_direct`) and
    DDIM with eta = 0 (`_ddim`): `utterance_sdr`, which the mixture (`_mixture`) and the mixture
    times each segment's best constant (`_gain`) have too, `mr_stft`, `level` by band and `leakage`.
    The noise is the same each time. Segments with silent vocals count for the leakage alone; a
    measure that no segment has is not reported.
    """

    samples = config.freeze != "generator"

    def by_rows(function: Callable, out_specs: Any) -> Callable:
        """Each device works on its rows, with the whole parameters."""
        return jax.jit(
            jax.shard_map(
                function,
                mesh=mesh,
                in_specs=(P(), BATCH_SPEC),
                out_specs=out_specs,
                check_vma=False,
            )
        )

    def noise_of(batch: Batch) -> Array:
        count, *shape = batch["vocals"].shape
        first_row = jax.lax.axis_index(MESH_AXES) * count
        key = run_keys(config.seed)[2]
        return draw_noise(key, first_row + jnp.arange(count, dtype=jnp.int32), tuple(shape))

    def losses_by_level(params: Params, batch: Batch) -> Float[Array, "level"]:
        vocals, mixture, noise = batch["vocals"], batch["mixture"], noise_of(batch)
        conditioning = model.condition(params, mixture)
        if not samples:
            loss = losses.reconstruction_loss(conditioning.estimate, vocals).mean()
            return jax.lax.pmean(loss[None], MESH_AXES)

        def at_level(sigma: Array) -> Array:
            x = diffusion.diffuse(vocals, noise, sigma)
            sigmas = jnp.broadcast_to(sigma, vocals.shape[:1])
            v_hat = model.velocity(params, x, sigmas, mixture, conditioning)
            v = diffusion.velocity(vocals, noise, sigma)
            return losses.diffusion_loss(v_hat, v).mean()

        levels = jax.lax.map(at_level, jnp.array(NOISE_LEVELS, jnp.float32))
        return jax.lax.pmean(levels, MESH_AXES)

    def separate(params: Params, batch: Batch) -> dict[str, Array]:
        mixture = batch["mixture"]
        conditioning = model.condition(params, mixture)
        separated = {**batch, "direct": conditioning.estimate}
        if not samples:
            return separated

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        steps = config.validation_sampler_steps
        ddim = samplers.ddim(velocity, noise_of(batch), steps=steps)
        return {**separated, "ddim": ddim}

    losses_fn, separate_fn = by_rows(losses_by_level, P()), by_rows(separate, BATCH_SPEC)
    first_segments = jax.jit(
        lambda segments: {name: audio[:NUM_SEGMENTS] for name, audio in segments.items()},
        out_shardings=NamedSharding(mesh, P()),  # to every process
    )

    def validate(params: Params, batches: Sequence[Batch]) -> Validation:
        levels: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        segments: list[dict[str, np.ndarray]] = []
        for raw in batches:
            batch = {name: audio * model.target_rms for name, audio in raw.items()}
            levels.append(np.asarray(losses_fn(params, batch)))
            separated = separate_fn(params, batch)
            if not segments:
                segments.append(jax.device_get(first_segments(separated)))
            names, rows = _scores(separated, model)
            scores.append(_of_all_processes(rows))
        by_level = np.mean(levels, axis=0)
        report = {"loss": float(by_level.mean())}
        if samples:
            report |= {
                f"loss_sigma_{level}": float(value)
                for level, value in zip(NOISE_LEVELS, by_level, strict=True)
            }
        for name, values in zip(names, np.concatenate(scores).T, strict=True):
            if len(defined := values[~np.isnan(values)]):
                report[name] = float(np.median(defined))
        return Validation(report, segments[0])

    return validate


def _scores(
    segments: dict[str, Array], model: SeparationModel
) -> tuple[list[str], Float[np.ndarray, "row measure"]]:
    """Measures by name of the rows on this process's devices; NaN where one is undefined."""
    scale = np.float32(_LEVEL / model.target_rms)
    parts = {name: scale * _local_rows(audio) for name, audio in segments.items()}
    rows = [
        _measures(dict(zip(parts, row, strict=True)), model.sample_rate)
        for row in zip(*parts.values(), strict=True)
    ]
    return list(rows[0]), np.array([list(row.values()) for row in rows], np.float32)


def _measures(segment: Mapping[str, np.ndarray], sample_rate: int) -> dict[str, float]:
    mixture, vocals = segment["mixture"], segment["vocals"]
    gain = np.float32(metrics.best_gain(vocals, mixture)) * mixture
    estimates = {name: segment[name] for name in ("direct", "ddim") if name in segment}
    floors = {"mixture": mixture, "gain": gain}
    found = {
        f"utterance_sdr_{name}": metrics.sdr(vocals, audio)
        for name, audio in (floors | estimates).items()
    }
    for name, audio in estimates.items():
        found[f"mr_stft_{name}"] = metrics.mr_stft(vocals, audio)
        for band, level in metrics.level_error_db(vocals, audio, sample_rate).items():
            found[f"level_{band}_{name}"] = level
    if metrics.is_silent(vocals):
        found = dict.fromkeys(found, np.nan)
    for name, audio in estimates.items():
        found[f"leakage_{name}"] = metrics.leakage_db(vocals, mixture, audio)
    return found


def _local_rows(audio: Array) -> np.ndarray:
    shards = sorted(audio.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _of_all_processes(rows: Float[np.ndarray, "row measure"]) -> Float[np.ndarray, "all measure"]:
    if jax.process_count() == 1:
        return rows
    return np.asarray(multihost_utils.process_allgather(rows)).reshape(-1, rows.shape[1])
