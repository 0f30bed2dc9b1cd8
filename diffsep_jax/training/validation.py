"""Validation during training: loss by noise level, and measures of separated segments."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from diffsep_jax import diffusion, losses, metrics, samplers
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.sharding import BATCH_SPEC, MESH_AXES
from diffsep_jax.training.step import Batch, draw_noise, run_keys

NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

NUM_SEGMENTS = 4
"""Segments that are kept to listen to. In stereo and with four rows, 3 s take 2 MB."""


class Validation(NamedTuple):
    """The result of one validation.

    Attributes:
        report: numbers by name.
        segments: `mixture`, `vocals`, `direct` and, where the generator runs, `ddim`, each
            `[segment, time, 2]`: the first `NUM_SEGMENTS` of the first batch.
    """

    report: dict[str, float]
    segments: dict[str, np.ndarray]


def make_validate(
    model: SeparationModel, config: TrainConfig, mesh: Mesh
) -> Callable[[Params, Sequence[Batch]], Validation]:
    """A function of (parameters, batches on the mesh), to be called by every process.

    `loss_sigma_S` is L_diff at noise level S and `loss` the mean over the levels; a frozen
    generator does not run, and `loss` is then the unweighted L_rec. The other numbers are medians
    over the segments, each scored as if it were a track, of the L_rec head (`_direct`) and of DDIM
    with eta = 0 (`_ddim`): `utterance_sdr`, also of the mixture (`_mixture`) and of the mixture
    times each segment's best constant (`_gain`); `mr_stft`; `level` by band; and `leakage`. The
    noise is the same each time. Segments with silent vocals count for the leakage only; a measure
    that no segment has is not reported.
    """

    def on_device(params: Params, batch: Batch) -> tuple[Float[Array, "level"], Batch]:
        """Mean losses by level, and the segments, of one device's rows."""
        vocals, mixture = batch["vocals"], batch["mixture"]
        conditioning = model.condition(params, mixture)
        segments = {**batch, "direct": conditioning.estimate}
        if config.freeze == "generator":
            loss = losses.mean_square_error(conditioning.estimate, vocals).mean()
            return jax.lax.pmean(loss[None], MESH_AXES), segments
        count, *shape = vocals.shape
        rows = jax.lax.axis_index(MESH_AXES) * count + jnp.arange(count, dtype=jnp.int32)
        noise = draw_noise(run_keys(config.seed)[2], rows, tuple(shape))
        velocity = model.velocity_fn(params, mixture, conditioning)

        def loss_at(sigma: Array) -> Array:
            v_hat = velocity(diffusion.diffuse(vocals, noise, sigma), sigma)
            return losses.mean_square_error(v_hat, diffusion.velocity(vocals, noise, sigma)).mean()

        levels = jax.lax.map(loss_at, jnp.array(NOISE_LEVELS, jnp.float32))
        segments["ddim"] = samplers.ddim(velocity, noise, steps=config.validation_sampler_steps)
        return jax.lax.pmean(levels, MESH_AXES), segments

    on_mesh = jax.jit(
        jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(P(), BATCH_SPEC),
            out_specs=(P(), BATCH_SPEC),
            check_vma=False,
        )
    )

    def validate(params: Params, batches: Sequence[Batch]) -> Validation:
        losses_of_batches, scores = [], []
        heard: dict[str, np.ndarray] = {}
        for raw in batches:
            batch = {name: audio * model.target_rms for name, audio in raw.items()}
            levels, segments = on_mesh(params, batch)
            losses_of_batches.append(np.asarray(levels))
            names, rows = _scores(segments, model)
            scores.append(multihost_utils.process_allgather(rows, tiled=True))
            if not heard:
                first = {name: audio[:NUM_SEGMENTS] for name, audio in segments.items()}
                heard = multihost_utils.process_allgather(first, tiled=True)
        by_level = np.mean(losses_of_batches, axis=0)
        report = {"loss": float(by_level.mean())}
        if config.freeze != "generator":
            for level, value in zip(NOISE_LEVELS, by_level, strict=True):
                report[f"loss_sigma_{level}"] = float(value)
        for name, values in zip(names, np.concatenate(scores).T, strict=True):
            if len(defined := values[~np.isnan(values)]):
                report[name] = float(np.median(defined))
        return Validation(report, heard)

    return validate


def _scores(
    segments: dict[str, Array], model: SeparationModel
) -> tuple[list[str], Float[np.ndarray, "row measure"]]:
    """Measures by name of the rows on this process's devices; NaN where one is undefined."""
    scale = np.float32(losses.MUSIC_RMS / model.target_rms)
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
