"""Scores, tracks and results made up for tests, songs in a folder, and a model for them."""

from pathlib import Path

import jax
import micro
import numpy as np
import soundfile as sf

from diffsep_jax.evaluation.protocols import METRICS, PROTOCOLS, REFERENCES
from diffsep_jax.evaluation.results import Condition, Result, Score, Track
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.inference.pretrained import save_model

RATE = 22_050

SDR = ("utterance_sdr", "si_sdr")


def noise(*shape, seed=0, level=0.1):
    return np.float32(level) * np.random.default_rng(seed).standard_normal(shape, np.float32)


def write_model(directory):
    """The micro model with random weights."""
    shapes = jax.eval_shape(micro.MODEL.init, jax.random.key(0))
    save_model(directory, micro.MODEL, jax.tree.map(lambda leaf: noise(*leaf.shape), shapes))
    return directory


def write_songs(folder, names=("one", "two"), silent=(), seconds=1):
    """Songs of noise at another rate than the model's."""
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        level = 0.0 if name in silent else 0.1
        vocals = noise(RATE * seconds, 2, seed=i, level=level)
        band = noise(RATE * seconds, 2, seed=100 + i)
        for stem, audio in (("vocals", vocals), ("band", band)):
            sf.write(folder / name / f"{stem}.wav", audio, RATE, subtype="FLOAT")
    return folder


def song(name="one", seconds=1.0, *, seed=0, silent=False, **fields):
    samples = round(seconds * RATE)
    return Song(
        name=name,
        vocals=noise(samples, 2, seed=seed, level=0.0 if silent else 0.1),
        accompaniment=noise(samples, 2, seed=100 + seed),
        sample_rate=RATE,
        **fields,
    )


def score(value, metrics=SDR, **fields):
    values = {name: value for name in metrics}
    undefined = {} if value is not None else {name: "silent" for name in metrics}
    return Score(metrics=values, undefined=undefined, **fields)


def track(name, values, *, condition="T=50 eta=0", mixture=0.0, metrics=SDR, **fields):
    """A track of one condition; `values` are the repeats' scores, None for silent vocals."""
    silent = None in values
    scores = tuple(score(v, metrics, seconds=2.0, seed=i) for i, v in enumerate(values))
    return Track(
        **{
            "name": name,
            "audio_seconds": 4.0,
            "sample_rate": RATE,
            "silent": silent,
            "references": {
                reference: score(None if silent else mixture, metrics) for reference in REFERENCES
            },
            "estimates": {condition: scores},
        }
        | fields
    )


def result(tracks, conditions=None, metrics=SDR, **fields):
    if conditions is None:
        names = next(iter(tracks)).estimates
        settings = {"sampler": "ddim", "steps": 50, "eta": 0.0, "cutoff_hz": None}
        conditions = [Condition(name=name, settings=dict(settings)) for name in names]
    return Result(
        **{
            "settings": {"data": "somewhere", "metrics": list(metrics)},
            "protocols": {name: PROTOCOLS[name] for name in metrics},
            "versions": {"python": "3"},
            "hardware": {"platform": "cpu"},
            "command": "eval.py --out here",
            "conditions": tuple(conditions),
            "tracks": tuple(tracks),
            "summary": summarise(tracks, conditions, metrics),
        }
        | fields
    )


ALL = tuple(METRICS)


def lines_of(renderable, width=120):
    """What is printed, line by line."""
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


def cells(table):
    """The body of a table with bars as it is printed."""
    lines = [line for line in lines_of(table) if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def tree(folder: Path):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
