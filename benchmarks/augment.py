"""What each augmentation costs: milliseconds of one core per training example.

    python -m benchmarks.augment [--folder SONGS] [--segments 131072 32768] [--examples 80]

Songs are the embedded ones, and those of SONGS. An augmentation is alone in its row, and in every
example; `small` is its recipe with its own probabilities. Time is that of the processor, so other
programs disturb little; all rows take turns, and the median of five counts. The first examples,
which render or measure songs, are not counted.
"""

import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import tyro

import configs
from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.segments import Source
from data_pipelines.sources import open_source
from diffsep_jax.errors import one_line_errors

BATCH_SIZE = 8
ROUNDS = 5

SMALL = configs.get("small").data.pipeline.augment
ALWAYS: dict[str, dict[str, Any]] = {
    "remix": {"remix_probability": 1.0},
    "layers, both": {"layer_probability": 1.0},
    "vocals taken away": {"silent_share": 1.0},
    "speed": {"speed_percent": (-6.0, 6.0)},
    "tilt": {"eq_db": (-3.0, 3.0)},
    "bus": {"bus_probability": 1.0},
    "polarity, channels, gain": {
        "polarity_probability": 0.5,
        "channel_flip_probability": 0.5,
        "gain_db": (-6.0, 4.0),
    },
    "limiter": {"limiter_probability": 1.0},
    "low-pass": {"low_pass_probability": 1.0},
    "fade": {"fade_probability": 1.0},
}
EVERYTHING = {name: value for fields in ALWAYS.values() for name, value in fields.items()}
ROWS = {
    "nothing": NO_AUGMENTATION,
    "the paper's configs, without pitch shift": AugmentConfig(pitch_probability=0.0),
    **{name: dataclasses.replace(NO_AUGMENTATION, **fields) for name, fields in ALWAYS.items()},
    "`small`": SMALL,
    "`small` with all in every example": dataclasses.replace(NO_AUGMENTATION, **EVERYTHING),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured and how long.

    Attributes:
        folder: of song folders with wav stems.
        segments: samples of an example.
        examples: of a row's turn.
        num_songs: of the embedded ones.
        song_seconds: length of an embedded song.
        cache_dir: of the embedded ones.
    """

    folder: Path | None = None
    segments: tuple[int, ...] = (131_072, 32_768)
    examples: int = 80
    num_songs: int = 12
    song_seconds: float = 90.0
    cache_dir: str | None = None


def main(options: Options) -> None:
    """Measures and prints a table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    embedded = open_source(
        "embedded",
        num_songs=options.num_songs,
        seconds=options.song_seconds,
        cache_dir=options.cache_dir,
    )
    sources = {"embedded": embedded}
    if options.folder is not None:
        sources["folder"] = open_source(str(options.folder), cache_dir=options.cache_dir)
    columns = [(name, segment) for name in sources for segment in options.segments]
    for name, segment in columns:
        _milliseconds(sources[name], SMALL, segment, 10 * options.num_songs)
    times: dict[str, list[list[float]]] = {row: [[] for _ in columns] for row in ROWS}
    for _ in range(ROUNDS):
        for row, augmentation in ROWS.items():
            for (name, segment), taken in zip(columns, times[row], strict=True):
                taken.append(_milliseconds(sources[name], augmentation, segment, options.examples))
    print("| ms per example | " + " | ".join(f"{n}, {s:,}" for n, s in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row, measured in times.items():
        print(f"| {row} | " + " | ".join(f"{statistics.median(t):.2f}" for t in measured) + " |")


def _milliseconds(
    source: Source, augmentation: AugmentConfig, segment: int, examples: int
) -> float:
    """Of one core, for an example."""
    config = pipeline.PipelineConfig(
        batch_size=BATCH_SIZE, silent_kept=0.0, augment=augmentation, num_threads=1, prefetch=1
    )
    iterator = pipeline.iterate(pipeline.batches(source, config, segment=segment), 0, config)
    for _ in range(4):  # the first run after another row rearranges memory
        next(iterator)
    start = time.process_time()
    for _ in range(examples // BATCH_SIZE):
        next(iterator)
    elapsed = time.process_time() - start
    iterator.close()
    return 1e3 * elapsed / examples


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options))
