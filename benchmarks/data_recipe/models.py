"""Whole models on the development set: their scores, and whether voices or bands are the reason."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
import tyro

from benchmarks.data_recipe.clips import SAMPLE_RATE, Clip, medians, read_devset, score
from data_pipelines import dsp
from data_pipelines.source import ACTIVITY_BLOCK
from data_pipelines.sources import available_split, open_source
from diffsep_jax import metrics
from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.inference.separator import Separator
from diffsep_jax.runtime import use_compilation_cache


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
    print(f"{command.model}: {medians(scores)}")


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
