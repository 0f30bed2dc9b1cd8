"""Rows and results made up for tests, songs in a folder, and a model for them."""

import dataclasses
from pathlib import Path

import micro
import numpy as np
import soundfile as sf

from diffsep_jax.evaluation import scores
from diffsep_jax.evaluation.protocols import ANCHORS, METRICS
from diffsep_jax.evaluation.scores import Result
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.inference.settings import SamplerSettings

RATE = 22_050

SDR = ("utterance_sdr", "si_sdr")


def noise(*shape, seed=0, level=0.1):
    return np.float32(level) * np.random.default_rng(seed).standard_normal(shape, np.float32)


def write_model(directory):
    """The micro model with random weights."""
    save_model(directory, micro.MODEL, micro.random_params(micro.MODEL))
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


POINT = "T=50 eta=0"

ALL = tuple(METRICS)


def rows(track, values=(), *, condition=POINT, mixture=0.0, metrics=SDR, estimates=None, **fields):
    """A track's rows: the anchors at `mixture`, then each repeat of `values`; None is undefined.

    `estimates` are values by condition, in place of one condition's. `fields` are in every row;
    `problems` by condition.
    """
    estimates = {condition: values} if estimates is None else estimates
    problems = fields.pop("problems", {})
    silent = values and None in values
    anchors = {name: [None if silent else mixture] for name in ANCHORS}
    found = []
    for name, repeats in (anchors | estimates).items():
        for repeat, value in enumerate(repeats):
            drawn = name not in ANCHORS
            row = {"track": track, "condition": name, "repeat": repeat}
            row |= {"seed": repeat if drawn else None, "seconds": 2.0 if drawn else None}
            row |= dict.fromkeys(metrics, value) | {"audio_seconds": 4.0} | fields
            found.append(row | ({"problems": problems[name]} if name in problems else {}))
    return found


def result(tracks, conditions=None, metrics=SDR, folder="out", **run):
    """A result of the rows of tracks; `run` is of run.json."""
    found = [row for track in tracks for row in track]
    names = dict.fromkeys(row["condition"] for row in found if row["condition"] not in ANCHORS)
    settings = dataclasses.asdict(SamplerSettings(eta=0.0))
    conditions = conditions or dict.fromkeys(names or [POINT], settings)
    run = {
        "settings": {"data": "somewhere", "metrics": list(metrics)},
        "protocols": {name: METRICS[name].protocol for name in metrics},
        "versions": {"python": "3"},
        "hardware": {"platform": "cpu"},
        "command": "eval.py --out here",
        "conditions": conditions,
        "tracks": list(dict.fromkeys(row["track"] for row in found)),
    } | run
    return Result(
        runs={folder: run},
        protocols=run["protocols"],
        conditions=run["conditions"],
        tracks=tuple(run["tracks"]),
        rows=tuple(found),
    )


def write_result(out, result):
    (run,) = result.runs.values()
    scores.write_run(out, run)
    scores.append_rows(out, result.rows)


def lines_of(renderable, width=120):
    """What is printed, line by line."""
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


def tree(folder: Path):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
