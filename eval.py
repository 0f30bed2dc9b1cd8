"""Scores a model:  python eval.py --model NAME_OR_DIR --data SOURCE --out DIR [--steps 50 ...]

Composes a source of songs, a separator and the metrics; writes DIR/metrics.json and prints a table.
"""

import dataclasses
import pathlib
import time
from typing import Annotated

import rich
import tyro

from data_pipelines.sources import open_source
from diffsep_jax.errors import one_line_errors
from diffsep_jax.evaluation import scores
from diffsep_jax.inference.chunks import DEFAULT_OVERLAP, check_overlap
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.output import check_writable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Scores a model on songs whose vocals are known: utterance SDR per track and its median.

    Attributes:
        model: name of a shipped model, or a model directory.
        data: "embedded" (the test songs that no training sees), or a folder of songs.
        out: folder for metrics.json.
        settings: of the sampler.
        overlap: share of each chunk that is cross-faded with the next, 0 to 0.5.
        batch_size: chunks separated at once.
        num_songs: how many embedded songs.
        song_seconds: length of an embedded song.
        cache_dir: where rendered and resampled songs are kept; unset: the user's cache folder.
    """

    model: str = "small"
    data: str = "embedded"
    out: pathlib.Path
    settings: Annotated[SamplerSettings, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SamplerSettings
    )
    overlap: float = DEFAULT_OVERLAP
    batch_size: int = 4
    num_songs: int = 10
    song_seconds: float = 60.0
    cache_dir: str | None = None


def main(command: Evaluate) -> None:
    """Separates and scores every song. What can be wrong is found before a song is rendered."""
    from diffsep_jax.compilation_cache import use_compilation_cache
    from diffsep_jax.inference.separator import Separator

    use_compilation_cache()
    check_overlap(command.overlap)
    check_writable(command.out)
    source = open_source(
        command.data,
        split="test",
        num_songs=command.num_songs,
        seconds=command.song_seconds,
        cache_dir=command.cache_dir,
    )
    separator = Separator.from_pretrained(command.model, batch_size=command.batch_size)
    settings = dataclasses.asdict(command.settings)
    separator.warm_up(overlap=command.overlap, **settings)
    results = []
    for song in range(len(source)):
        vocals, accompaniment = source.segment(song, 0, source.num_samples(song))
        mixture = vocals + accompaniment
        start = time.perf_counter()
        separation = separator.separate(
            mixture, source.sample_rate, overlap=command.overlap, **settings
        )
        results.append(
            scores.score_track(
                source.name(song),
                vocals=vocals,
                mixture=mixture,
                estimate=separation.vocals,
                sample_rate=source.sample_rate,
                seconds=time.perf_counter() - start,
            )
        )
    written = {"model": command.model, "data": command.data, "overlap": command.overlap, **settings}
    scores.write_metrics(command.out / "metrics.json", results, written)
    rich.print(scores.table(results))
    print(f"{scores.PROTOCOL}\nwrote {command.out / 'metrics.json'}")


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Evaluate))
