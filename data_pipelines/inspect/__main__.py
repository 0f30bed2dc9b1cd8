"""Look before you train:  python -m data_pipelines.inspect SPEC [--split train] [--out FILE]

Prints what is in a data set and writes a page with a few of its training examples, to see and hear.
`train.py CONFIG --inspect FILE` writes the same page for the songs and the pipeline of a run.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import tyro

from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.source import Split
from diffsep_jax.arguments import arguments
from diffsep_jax.errors import check_at_least, one_line_errors

NUM_STEPS = 1_000_000
"""Examples are drawn from this many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Prints what is in a data set; writes a page with training examples to see and hear.

    Attributes:
        spec: "embedded", a folder of songs, or the folder of a built data set; comes first.
        split: examples are augmented in train only, as in training.
        augment: the augmentations, by default those of the paper's configs.
        silent_kept: share of the segments with silent vocals that is kept; 0 with
            `augment.silent_share`.
        segment: samples of an example.
        sample_rate: rate of the examples in Hz.
        examples: number of examples on the page.
        seed: seed that selects the examples.
        out: the page, one HTML file.
        num_songs: number of embedded songs.
        song_seconds: length of an embedded song.
        cache_dir: where rendered and resampled songs are kept; unset: the user's cache folder.
    """

    spec: tyro.conf.Positional[str]
    split: Split = "train"
    augment: AugmentConfig = AugmentConfig()
    silent_kept: float = 0.05
    segment: int = 131_072
    sample_rate: int = 44_100
    examples: int = 6
    seed: int = 0
    out: pathlib.Path = pathlib.Path("inspect.html")
    num_songs: int = 10
    song_seconds: float = 60.0
    cache_dir: str | None = None


def main(args: Sequence[str]) -> None:
    """Runs the command."""
    command = tyro.cli(Inspect, args=arguments(args))
    check_at_least(command, examples=1, segment=1, sample_rate=1, seed=0)

    # Imported here because they are slow: help and bad options answer at once.
    from data_pipelines.inspect.page import report
    from data_pipelines.pipeline import PipelineConfig
    from data_pipelines.sources import open_source

    augment = command.augment if command.split == "train" else NO_AUGMENTATION
    report(
        open_source(
            command.spec,
            split=command.split,
            num_songs=command.num_songs,
            seconds=command.song_seconds,
            cache_dir=command.cache_dir,
            sample_rate=command.sample_rate,
        ),
        PipelineConfig(batch_size=1, silent_kept=command.silent_kept, augment=augment),
        spec=f"{command.spec}, {command.split}",
        segment=command.segment,
        num_steps=NUM_STEPS,
        num_examples=command.examples,
        seed=command.seed,
        out=command.out,
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
