"""A short training of the spectral conditioner, scored halfway and at its end."""

import collections
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float

import configs
from benchmarks.data_recipe.clips import SAMPLE_RATE, Clip, medians, read_devset, score
from data_pipelines import pipeline
from data_pipelines.combined import CombinedSongs
from data_pipelines.folders import FolderSongs
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.source import Source
from data_pipelines.sources import open_source
from diffsep_jax import losses
from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.runtime import use_compilation_cache
from diffsep_jax.training.optimizer import Method, OptimizerConfig, direction

CROSS_FADE = 8_192
WEIGHTS = configs.get("small").train.loss_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Trains for some CPU minutes and scores every clip of the development set.

    Attributes:
        name: of the run.
        source: data sets as of train.py.
        weights: of the data sets.
        leave_out: KEY=VALUE pairs: songs whose song.json says so are not used; KEY may have dots,
            and of a list any element may match.
        only: the same for songs that are used alone.
        first_songs: how many of the songs that are left are used, to tell what fewer songs cost.
        held_out: so many of each data set's validation songs are scored too, as part "rendered":
            what is learnt there and not on real voices was not in the songs.
        pipeline: batches and augmentation.
        devset: folder of the development set.
        out: folder of the runs.
        minutes: CPU minutes of training.
        segment: samples of an example.
        window: of the conditioner's STFT in samples.
        method: of the optimiser, adamw or muon.
        learning_rate: the highest; after a warm-up it falls as a cosine.
        num_songs: of the embedded songs.
        cache_dir: of the embedded songs.
        seed: of the parameters.
    """

    name: tyro.conf.Positional[str]
    source: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    leave_out: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    first_songs: int | None = None
    held_out: int = 0
    pipeline: PipelineConfig = dataclasses.replace(configs.get("small").data.pipeline, batch_size=4)
    devset: Path
    out: Path
    minutes: float = 10.0
    segment: int = 65_536
    window: int = 2048
    method: Method = "muon"
    learning_rate: float = 2e-3
    num_songs: int = 120
    cache_dir: str | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SomeSongs:
    """Songs of a source by their numbers."""

    source: Source
    numbers: tuple[int, ...]

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    def __len__(self) -> int:
        return len(self.numbers)

    def __getattr__(self, method: str) -> Any:
        function = getattr(self.source, method)
        return lambda song, *arguments: function(self.numbers[song], *arguments)


def open_songs(command: Train) -> Source:
    """The songs to train on, without those that are left out."""
    sources = []
    for name in command.source:
        source = open_source(name, num_songs=command.num_songs, cache_dir=command.cache_dir)
        chosen = command.leave_out or command.only or command.first_songs
        if chosen and not isinstance(source, FolderSongs):
            raise UserError(f"{name}: a choice of songs needs a folder of songs")
        if isinstance(source, FolderSongs) and chosen:
            facts = [_facts(files.recording.vocals[0].path.parent) for files in source.songs]
            kept = [
                number
                for number, fact in enumerate(facts)
                if not any(_matches(fact, pair) for pair in command.leave_out)
                and all(_matches(fact, pair) for pair in command.only)
            ][: command.first_songs]
            if not kept:
                raise UserError(f"{name}: no songs are left; expected fewer --leave-out or --only")
            print(f"{name}: {len(kept)} of {len(source)} songs")
            source = SomeSongs(source=source, numbers=tuple(kept))
        sources.append(source)
    if len(sources) == 1:
        return sources[0]
    return CombinedSongs(names=command.source, sources=tuple(sources), weights=command.weights)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "song.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _matches(facts: dict[str, Any], pair: str) -> bool:
    key, _, wanted = pair.partition("=")
    value: Any = facts
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return wanted in map(str, value) if isinstance(value, list) else str(value) == wanted


def read_held_out(command: Train) -> dict[str, Clip]:
    """Ten seconds from the middle of some validation songs, by data set and name."""
    clips = {}
    for name in command.source if command.held_out else ():
        songs = open_source(
            name, split="validation", num_songs=command.held_out, cache_dir=command.cache_dir
        )
        for song in range(min(command.held_out, len(songs))):
            length = min(10 * SAMPLE_RATE, songs.num_samples(song))
            start = (songs.num_samples(song) - length) // 2
            clips[f"{name} {songs.name(song)}"] = Clip(
                part="rendered", **songs.segment(song, start, length)._asdict()
            )
    return clips


def train(command: Train) -> None:
    """Trains, scores halfway and at the end, writes the run."""
    check_writable(command.out)
    use_compilation_cache()
    source = open_songs(command)
    clips = read_devset(command.devset) | read_held_out(command)
    network = SpectralConditioner(window=command.window)
    silence = jnp.zeros((1, command.segment, 2))
    params = jax.jit(network.init)(jax.random.key(command.seed), silence)
    count = sum(x.size for x in jax.tree.leaves(params))
    method = OptimizerConfig(method=command.method, b2=0.99)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), direction(method))
    params = {"conditioner": params["params"]}
    state, ema = optimizer.init(params), params

    def apply(params: Any, mixture: Array) -> Array:
        conditioning = network.apply({"params": params["conditioner"]}, mixture)
        return conditioning.estimate  # type: ignore[union-attr]

    def loss_of(params: Any, mixture: Array, vocals: Array) -> Array:
        """L_rec of config `small`."""
        error = losses.reconstruction_loss(apply(params, mixture), vocals)
        return WEIGHTS.reconstruction * losses.logarithmic(error, WEIGHTS.log_floor).mean()

    @jax.jit
    def step(
        params: Any, state: Any, ema: Any, mixture: Array, vocals: Array, rate: Array
    ) -> tuple[Any, Any, Any, Array]:
        loss, gradient = jax.value_and_grad(loss_of)(params, mixture, vocals)
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        ema = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, ema, params)
        return params, state, ema, loss

    estimate = jax.jit(apply)
    batches = pipeline.batches(source, command.pipeline, segment=command.segment)
    example = batches[0]
    step(params, state, ema, example["mixture"], example["vocals"], jnp.float32(0))  # compiles

    settings = json.loads(json.dumps(dataclasses.asdict(command), default=str))
    scores: dict[str, Any] = {}
    number, not_training, recent = 0, 0.0, collections.deque[float](maxlen=100)
    start, start_cpu = time.perf_counter(), time.process_time()
    for at in (0.5, 1.0):
        while True:
            spent = time.process_time() - start_cpu - not_training
            progress = spent / (60 * command.minutes)
            if progress >= at:
                break
            rate = command.learning_rate * min(1.0, (number + 1) / 50)
            rate *= 0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * progress))
            batch = batches[number]
            params, state, ema, loss = step(
                params, state, ema, batch["mixture"], batch["vocals"], jnp.float32(rate)
            )
            recent.append(float(loss))
            number += 1
        scoring = time.process_time()
        scores[str(at)] = {
            name: score(clip, _separate(clip.mixture, estimate, ema, command.segment))
            for name, clip in clips.items()
        }
        not_training += time.process_time() - scoring
        seconds = number * command.pipeline.batch_size * command.segment / SAMPLE_RATE
        run = {
            "settings": settings,
            "parameters": count,
            "steps": number,
            "cpu_minutes": (time.process_time() - start_cpu - not_training) / 60,
            "minutes": (time.perf_counter() - start) / 60,
            "audio_hours": seconds / 3600,
            "loss": float(np.mean(recent)),
            "scores": scores,
        }
        write_bytes(command.out / f"{command.name}.json", json.dumps(run, indent=1).encode())
        print(
            f"{command.name}: {number} steps, {run['audio_hours']:.2f} h, loss {run['loss']:.4f},"
            f" {medians(scores[str(at)])}",
            flush=True,
        )


def _separate(
    mixture: Float[np.ndarray, "time 2"], estimate: Any, params: Any, segment: int
) -> Float[np.ndarray, "time 2"]:
    """Chunks of a segment with linear cross-fades, at unit RMS."""
    level = float(np.sqrt(np.mean(np.square(mixture)))) or 1.0
    hop = segment - CROSS_FADE
    count = max(1, -(-(len(mixture) - CROSS_FADE) // hop))
    padded = np.zeros((count * hop + CROSS_FADE, 2), np.float32)
    padded[: len(mixture)] = mixture / level
    fade = np.minimum(1.0, (np.arange(segment) + 0.5) / CROSS_FADE)
    window = (fade * fade[::-1]).astype(np.float32)[:, None]
    out, weight = np.zeros_like(padded), np.zeros((len(padded), 1), np.float32)
    for start in range(0, count * hop, hop):
        chunk = slice(start, start + segment)
        out[chunk] += window * np.asarray(estimate(params, padded[None, chunk]))[0]
        weight[chunk] += window
    return (out / weight * level)[: len(mixture)]
