"""Examples per second and core: our sources and augmentations, against a PyTorch DataLoader.

    python -m benchmarks.data --folder SONGS [--data-set BUILT] [--seconds 3]

SONGS holds song folders with vocals.wav and other stems at 44.1 kHz; BUILT is what
`python -m data_pipelines.build` made of them. Needs the `bench` extra. The process is pinned to one
core. The PyTorch loader reads random segments of the same files with soundfile (vocals and mixture,
or the sum of all stems where there is no mixture.wav) and collates batches of mixture and vocals,
as ours does; it augments nothing. All take turns, `--rounds` times; the medians are printed. From
the second round on, files that fit into memory are read from the page cache.
"""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
import torch
import tyro
from torch.utils.data import DataLoader, Dataset

from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.source import Source
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError, one_line_errors

BATCH_SIZE = 8
SEGMENT = 131_072

Loader = Callable[[], contextlib.AbstractContextManager[Iterator[Any]]]
"""Opens an iterator over batches, and closes it."""

AUGMENTATIONS = {
    "nothing": NO_AUGMENTATION,
    "channel flip": dataclasses.replace(NO_AUGMENTATION, channel_flip_probability=0.5),
    "remix": dataclasses.replace(NO_AUGMENTATION, remix_probability=0.5),
    "pitch shift of every example": dataclasses.replace(NO_AUGMENTATION, pitch_probability=1.0),
    "all, by default": AugmentConfig(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and for how long.

    Attributes:
        folder: song folders with wav stems.
        data_set: what was built from them.
        seconds: length of a turn.
        rounds: turns of each loader.
    """

    folder: pathlib.Path
    data_set: pathlib.Path | None = None
    seconds: float = 3.0
    rounds: int = 3


class RandomSegments(Dataset):
    """Random segments of the stems in song folders, read by soundfile."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._songs = []
        for vocals in sorted(folder.glob("**/vocals.wav")):
            mixture = vocals.with_name("mixture.wav")
            stems = sorted(vocals.parent.glob("*.wav"))
            parts = [mixture] if mixture.exists() else [p for p in stems if p != vocals]
            self._songs.append((vocals, parts, soundfile.info(vocals).frames))
        if not self._songs:
            raise UserError(f"folder is {folder}; expected song folders with vocals.wav")

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(index)
        vocals_path, parts, frames = self._songs[int(rng.integers(len(self._songs)))]
        start = int(rng.integers(frames - SEGMENT + 1))

        def read(path: pathlib.Path) -> torch.Tensor:
            audio, _ = soundfile.read(path, SEGMENT, start, dtype="float32")
            return torch.from_numpy(audio)

        vocals = read(vocals_path)
        if parts[0].stem == "mixture":
            return {"mixture": read(parts[0]), "vocals": vocals}
        return {"mixture": vocals + sum(map(read, parts)), "vocals": vocals}


def main(options: Options) -> None:
    """Measures and prints a table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    loaders: dict[str, Loader] = {}
    dataset = RandomSegments(options.folder)
    loaders["PyTorch DataLoader, in its process"] = lambda: _torch(dataset, 0)
    loaders["PyTorch DataLoader, one worker"] = lambda: _torch(dataset, 1)
    sources = {"folder": open_source(str(options.folder))}
    if options.data_set is not None:
        sources["records"] = open_source(str(options.data_set))
    for kind, source in sources.items():
        for name, augmentation in AUGMENTATIONS.items():
            loaders[f"{kind}, {name}"] = _ours(source, augmentation)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.rounds):
        for name, loader in loaders.items():
            rates[name].append(_rate(loader, options.seconds))
    figures = {name: statistics.median(values) for name, values in rates.items()}
    best = max(rate for name, rate in figures.items() if name.startswith("PyTorch"))
    print("| loader | examples/s | of PyTorch's |")
    print("|---|---|---|")
    for name, rate in figures.items():
        print(f"| {name} | {rate:.0f} | {rate / best:.2f} |")


def _ours(source: Source, augmentation: AugmentConfig) -> Loader:
    config = pipeline.PipelineConfig(
        batch_size=BATCH_SIZE, augment=augmentation, num_threads=1, prefetch=1
    )
    return lambda: contextlib.closing(
        pipeline.iterate(pipeline.batches(source, config, segment=SEGMENT), 0, config)
    )


@contextlib.contextmanager
def _torch(dataset: Dataset, workers: int) -> Iterator[Iterator[Any]]:
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers)
    iterator = iter(loader)
    yield iterator
    del iterator


def _rate(loader: Loader, seconds: float) -> float:
    """Examples per second, without the first batch."""
    with loader() as batches:
        next(batches)
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            next(batches)
            count += BATCH_SIZE
    return count / elapsed


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options))
