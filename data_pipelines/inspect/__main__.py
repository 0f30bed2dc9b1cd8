"""Look before you train:  python -m data_pipelines.inspect SPEC [--split train] [--out FILE]

Prints what is in a data set and writes a page with a few of its training examples, to see and hear.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import get_args

import tyro
from rich.console import Console

from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.embedded.synthesis import Split
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.files import check_writable, write_bytes

MOST_EXAMPLES = 100
"""On one page; a browser holds them all in memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Prints what is in a data set; writes a page with training examples to see and hear.

    Attributes:
        spec: "embedded", a folder of songs, or the folder of a built data set; comes first.
        split: train, validation or test. Examples are augmented in train only, as in training.
        augment: the augmentations, by default those of the paper's configs.
        silent_kept: share of the segments with silent vocals that is kept; 0 with
            `augment.silent_share`.
        segment: samples of an example.
        sample_rate: of the examples, in Hz.
        examples: how many, 1 to 100.
        seed: which examples.
        songs_listed: how many songs get a line of their own.
        out: the page, one HTML file.
        num_songs: how many embedded songs.
        song_seconds: length of an embedded song.
        cache_dir: where rendered and resampled songs are kept; unset: the user's cache folder.
    """

    spec: tyro.conf.Positional[str]
    split: str = "train"
    augment: AugmentConfig = AugmentConfig()
    silent_kept: float = 0.05
    segment: int = 131_072
    sample_rate: int = 44_100
    examples: int = 6
    seed: int = 0
    songs_listed: int = 20
    out: pathlib.Path = pathlib.Path("inspect.html")
    num_songs: int = 10
    song_seconds: float = 60.0
    cache_dir: str | None = None


def main(args: Sequence[str]) -> None:
    """Runs the command. What can be wrong is found before a song is read."""
    command = tyro.cli(Inspect, args=args)
    split = _check(command)

    # Imported here, for they are slow: help and bad options answer at once.
    from data_pipelines.inspect import contents, examples, page
    from data_pipelines.pipeline import PipelineConfig
    from data_pipelines.sources import open_source

    augment = command.augment if split == "train" else NO_AUGMENTATION
    pipeline = PipelineConfig(batch_size=1, silent_kept=command.silent_kept, augment=augment)
    source = open_source(
        command.spec,
        split=split,
        num_songs=command.num_songs,
        seconds=command.song_seconds,
        cache_dir=command.cache_dir,
        sample_rate=command.sample_rate,
    )
    found = contents.measure(source, spec=command.spec, split=split)
    console = Console()
    console.print(contents.summary_table(found))
    if command.songs_listed:
        console.print(contents.song_table(found, command.songs_listed))
    drawn = examples.draw(
        source,
        pipeline,
        segment=command.segment,
        num_examples=command.examples,
        seed=command.seed,
    )
    html = page.render(found, list(drawn), augment=augment)
    data = html.encode()
    write_bytes(command.out, data)
    print(f"wrote {command.out} ({len(data) / 1e6:.1f} MB): open it in a browser")


def _check(command: Inspect) -> Split:
    """The split, if the options are sound; UserError otherwise."""
    if not 1 <= command.examples <= MOST_EXAMPLES:
        raise UserError(f"examples={command.examples}: expected 1 to {MOST_EXAMPLES}")
    for name, least in (("seed", 0), ("songs_listed", 0), ("segment", 1), ("sample_rate", 1)):
        if getattr(command, name) < least:
            raise UserError(f"{name}={getattr(command, name)}: expected {least} or more")
    if command.out.is_dir():
        raise UserError(f"{command.out}: is a folder, expected the name of an HTML file")
    check_writable(command.out.parent)
    for split in get_args(Split):
        if command.split == split:
            return split
    raise UserError(f"split={command.split}: expected {', '.join(get_args(Split))}")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
