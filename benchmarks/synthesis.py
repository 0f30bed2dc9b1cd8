"""Speed of the song synthesiser and of the data pipeline behind it, on one core.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.synthesis [--num-songs 8] [--seconds 60]

Prints how many times faster than real time songs are rendered (processor time, so that a busy
machine does not count), how long a segment takes from the cache, and how many examples a second the
pipeline yields.
"""

import dataclasses
import tempfile
import time

import tyro

from data_pipelines.pipeline import PipelineConfig, batches
from data_pipelines.sources import EmbeddedSongs
from data_pipelines.synthesis import render_song
from diffsep_jax.errors import one_line_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure rendering, random access and the pipeline."""

    num_songs: int = 8
    """Songs to render; they differ in cost."""
    seconds: float = 60.0
    """Length of each song."""


def main(args: Arguments) -> None:
    """Print one line for each measurement."""
    render_song(split="train", seed=1, song=0, seconds=2.0)
    speeds = []
    for song in range(args.num_songs):
        start = time.process_time()
        render_song(split="train", seed=1, song=song, seconds=args.seconds)
        speeds.append(args.seconds / (time.process_time() - start))
    mean = len(speeds) / sum(1 / speed for speed in speeds)
    print(
        f"rendering: {mean:.1f} x real time on one core "
        f"(slowest song {min(speeds):.1f}, fastest {max(speeds):.1f}; {args.num_songs} songs)"
    )
    with tempfile.TemporaryDirectory() as folder:
        source = EmbeddedSongs(num_songs=2, seconds=args.seconds, seed=1, cache_dir=folder)
        config = PipelineConfig(batch_size=8)
        segment = min(131072, source.num_samples(0))
        data = batches(source, config, segment=segment)
        data[0], data[1]
        start = time.process_time()
        for _ in range(100):
            source.segment(0, 0, segment)
        each = (time.process_time() - start) / 100
        print(f"segment of {segment} samples from the cache: {each * 1e3:.2f} ms")
        start = time.process_time()
        for step in range(10):
            data[step]
        rate = 10 * config.batch_size / (time.process_time() - start)
        print(f"pipeline: {rate:.0f} examples of {segment} samples a second on one core")


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
