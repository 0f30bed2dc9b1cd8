"""What songs and augmentations teach: short trainings of one network, scored on real voices.

    python -m benchmarks.data_recipe train both --source SUNG embedded --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe train no_dense --source SUNG --leave-out band.kind=dense \\
        --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe score small --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe table --out RUNS --baseline both

Each training is one process on one core for a number of CPU minutes, so that several can run side
by side; it learns the direct estimate alone, by the spectral conditioner. DEVSET is what `python -m
data_pipelines.build devset` makes. A run writes RUNS/NAME.json with every clip's scores; `score`
does so for the direct estimate of a whole model; `table` compares runs by paired differences;
`cross` tells whether it is the voices or the bands that are unlike the songs.
"""

import os

os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
    + os.environ.get("XLA_FLAGS", "")
)

import collections
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.box
import rich.console
import rich.table
import tyro
from jaxtyping import Array, Float

import configs
from data_pipelines import dsp, pipeline
from data_pipelines.combined import CombinedSongs
from data_pipelines.folders import FolderSongs
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.segments import ACTIVITY_BLOCK, Source
from data_pipelines.sources import available_split, open_source
from diffsep_jax import losses, metrics
from diffsep_jax.compilation_cache import use_compilation_cache
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.statistics import bootstrap_interval
from diffsep_jax.inference.separator import Separator
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.output import check_writable, write_bytes
from diffsep_jax.training.optimizer import Method, OptimizerConfig, direction

SAMPLE_RATE = 44_100
CROSS_FADE = 8_192
WEIGHTS = configs.get("small").train.loss_weights
MIDDLE_HZ = (250.0, 3000.0)
"""Where voices lie, and where bands leak into them."""


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
class Score:
    """Scores the direct estimate of a whole model, to stand in the table.

    Attributes:
        model: shipped model or model directory; the run is named after it and its folder.
        devset: folder of the development set.
        out: folder of the runs.
    """

    model: tyro.conf.Positional[str]
    devset: Path
    out: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cross:
    """Tells whether voices or bands are unlike the songs: scores each under the other's.

    Voices and bands of the development set and of validation songs in all four combinations, at
    the development set's ratios, by the direct estimate.

    Attributes:
        model: shipped model or model directory.
        source: a data set of songs, as of train.py.
        devset: folder of the development set.
    """

    model: tyro.conf.Positional[str]
    source: str
    devset: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Compares the runs in a folder with one of them, or with the mean of several.

    Attributes:
        out: folder of the runs.
        baseline: names of the runs that the others are compared with, such as two seeds of one.
        at: which of a run's scores: 1 at the end, 0.5 after half of its time.
    """

    out: Path
    baseline: tuple[str, ...]
    at: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip of the development set."""

    part: str
    vocals: Float[np.ndarray, "time 2"]
    accompaniment: Float[np.ndarray, "time 2"]

    @property
    def mixture(self) -> Float[np.ndarray, "time 2"]:
        return self.vocals + self.accompaniment


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
        if isinstance(source, FolderSongs) and chosen:
            facts = [_facts(files.vocals.parent) for files in source.songs]
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


def read_devset(folder: Path) -> dict[str, Clip]:
    """Every clip by its name."""
    facts = json.loads((folder / "meta.json").read_text())
    songs = FolderSongs(path=str(folder))
    clips = {}
    for song in range(len(songs)):
        vocals, accompaniment = songs.segment(song, 0, songs.num_samples(song))
        name = songs.name(song)
        part = facts[name].get("part", "all")
        clips[name] = Clip(part=part, vocals=vocals, accompaniment=accompaniment)
    return clips


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
            f" {_medians(scores[str(at)])}",
            flush=True,
        )


def score_model(command: Score) -> None:
    """Separates every clip by the direct estimate and scores it, writes the run."""
    check_writable(command.out)
    use_compilation_cache()
    separator = Separator.from_pretrained(command.model)
    scores = {}
    for name, clip in read_devset(command.devset).items():
        vocals = separator.separate(clip.mixture, SAMPLE_RATE, sampler="direct").vocals
        scores[name] = score(clip, vocals)
    path = command.out / f"{'_'.join(Path(command.model).parts[-2:])}.json"
    write_bytes(path, json.dumps({"scores": {"1.0": scores}}, indent=1).encode())
    print(f"{command.model}: {_medians(scores)}")


def cross(command: Cross) -> None:
    """Prints mean and median for each combination, and what the best gain reaches."""
    separator = Separator.from_pretrained(command.model)
    real = list(read_devset(command.devset).values())
    if available_split(command.source, "validation") != "validation":
        raise UserError(f"{command.source}: expected a data set with a split named validation")
    songs = open_source(command.source, split="validation")
    rendered = []
    for song in range(min(len(real), len(songs))):
        blocks = 10 * SAMPLE_RATE // ACTIVITY_BLOCK
        first = np.argmax(np.convolve(songs.activity(song), np.ones(blocks), "valid"))
        start = int(first) * ACTIVITY_BLOCK
        length = min(10 * SAMPLE_RATE, songs.num_samples(song) - start)
        clip = Clip(part="", **songs.segment(song, start, length)._asdict())
        if min(dsp.rms(clip.vocals), dsp.rms(clip.accompaniment)) == 0:
            raise UserError(f"{command.source}: {songs.name(song)} has no vocals or no band")
        rendered.append(clip)
    columns = ("voices", "bands", "clips", "mean, dB", "median, dB", "best gain, dB")
    grid = rich.table.Table(*columns, box=rich.box.MARKDOWN)
    for (voices, sung), (bands, played) in itertools.product(
        (("real", real), ("rendered", rendered)), repeat=2
    ):
        found, floors = [], []
        for there, voice, band in zip(real, sung, played, strict=False):
            length = min(len(voice.vocals), len(band.accompaniment))
            vocals, accompaniment = voice.vocals[:length], band.accompaniment[:length]
            ratio = dsp.rms(there.vocals) / dsp.rms(there.accompaniment)
            accompaniment = accompaniment * (dsp.rms(vocals) / dsp.rms(accompaniment) / ratio)
            mixture = vocals + accompaniment
            estimate = separator.separate(mixture, SAMPLE_RATE, sampler="direct").vocals
            found.append(metrics.sdr(vocals, estimate))
            floors.append(metrics.sdr(vocals, metrics.best_gain(vocals, mixture) * mixture))
        figures = np.mean(found), np.median(found), np.median(floors)
        grid.add_row(voices, bands, str(len(found)), *(f"{figure:.2f}" for figure in figures))
    rich.console.Console(highlight=False).print(grid)


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


def score(clip: Clip, vocals: Float[np.ndarray, "time 2"]) -> dict[str, Any]:
    """Utterance SDR, leakage, and what share of voice and band is in the middle of the output."""
    voice, band = _middle_shares(clip, vocals)
    return {
        "part": clip.part,
        "sdr": metrics.sdr(clip.vocals, vocals),
        "mr_stft": metrics.mr_stft(clip.vocals, vocals),
        "leakage_db": metrics.leakage_db(clip.vocals, clip.mixture, vocals),
        "voice_kept": voice,
        "band_passed": band,
    }


def _middle_shares(clip: Clip, estimate: Float[np.ndarray, "time 2"]) -> tuple[float, float]:
    """Least-squares shares of vocals and accompaniment in an estimate between `MIDDLE_HZ`."""
    frequencies = np.fft.rfftfreq(len(estimate), 1 / SAMPLE_RATE)
    inside = (frequencies >= MIDDLE_HZ[0]) & (frequencies < MIDDLE_HZ[1])
    voice, band, output = (
        np.fft.rfft(x, axis=0)[inside].ravel() for x in (clip.vocals, clip.accompaniment, estimate)
    )
    stems = np.stack([voice, band])
    gram = (stems @ stems.conj().T).real
    shares = np.linalg.solve(gram, (stems.conj() @ output).real)
    return float(shares[0]), float(shares[1])


def _parts(scores: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The names of the clips of each part, then of all."""
    parts: dict[str, list[str]] = {}
    for name, clip in scores.items():
        parts.setdefault(clip["part"], []).append(name)
    yield from sorted(parts.items())
    yield "all", list(scores)


def _medians(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{part} {np.median([scores[name]['sdr'] for name in names]):.2f} dB"
        for part, names in _parts(scores)
    )


def table(command: Table) -> None:
    """Prints medians and paired differences with intervals."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(command.out.glob("*.json"))}
    scores = {
        name: run["scores"][str(command.at)]
        for name, run in runs.items()
        if str(command.at) in run["scores"]
    }
    for name in command.baseline:
        if name not in scores:
            raise UserError(f"--baseline {name}: expected one of {', '.join(scores)}")
    bases = [scores[name] for name in command.baseline]
    grid = rich.table.Table("run", "CPU min", "audio h", box=rich.box.MARKDOWN)
    for part, names in _parts(bases[0]):
        grid.add_column(f"{part} ({len(names)}), dB")
        grid.add_column(f"to {' '.join(command.baseline)}")
    columns = ("voice_kept", "band_passed", "mr_stft", "leakage_db")
    for column in columns:
        grid.add_column(column.replace("_", " "))
    for name in sorted(scores, key=lambda name: name not in command.baseline):
        spent = [runs[name].get(key) for key in ("cpu_minutes", "audio_hours")]
        row = [name, *("" if value is None else f"{value:.1f}" for value in spent)]
        for _, names in _parts(bases[0]):
            found = [clip for clip in names if all(clip in s for s in [scores[name], *bases])]
            values = np.array([scores[name][clip]["sdr"] for clip in found])
            means = [np.mean([base[clip]["sdr"] for base in bases]) for clip in found]
            row += [f"{np.median(values):.2f}", ""] if found else ["", ""]
            if found and name not in command.baseline:
                interval = bootstrap_interval((values - means)[:, None], np.mean)
                spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
                row[-1] = f"{np.mean(values - means):+.2f}{spread}"
        for column in columns:
            values = np.array([clip[column] for clip in scores[name].values()], np.float64)
            row.append(f"{np.nanmedian(values):.2f}")
        grid.add_row(*row)
    rich.console.Console(width=400, highlight=False).print(grid)


if __name__ == "__main__":
    with one_line_errors():
        match tyro.cli(Train | Score | Cross | Table):
            case Train() as command:
                train(command)
            case Score() as command:
                score_model(command)
            case Cross() as command:
                cross(command)
            case Table() as command:
                table(command)
