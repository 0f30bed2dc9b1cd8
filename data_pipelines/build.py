"""Builds data sets.

    python -m data_pipelines.build LAYOUT --source DIR --out DIR   records of a folder of audio
    python -m data_pipelines.build sung --out DIR --hours 10       songs of synthesised voices
    python -m data_pipelines.build music --out DIR                 real bands to sing over
    python -m data_pipelines.build devset --out DIR                real voices to judge by

Run the same command again after an interruption: what is finished is kept.
"""

import contextlib
import dataclasses
import functools
import io
import json
import logging
import shlex
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import rich.progress
import tyro
from rich.console import Console

from data_pipelines.builders.builder import BuildConfig, InProcesses, RecordsBuilder, Runner
from data_pipelines.builders.layouts import Layout
from data_pipelines.builders.patterns import PAIRS, STEMS, read_patterns
from data_pipelines.builders.recordings import SPLITS
from data_pipelines.builders.report import as_json, print_report, summarise
from data_pipelines.devset.build import BuildDevset, build_devset
from data_pipelines.music import BuildMusic, build_music
from data_pipelines.record_format import Dtype, check_same_format, table_name
from data_pipelines.song_table import read_table
from data_pipelines.sung.build import BuildSung, build_sung
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.files import check_writable, write_bytes

REPORT = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """Builds a data set of records for training from a folder of audio files.

    Attributes:
        layout: of the folder, see `data_pipelines.builders.layouts`.
        source: the folder.
        out: gets LAYOUT/VERSION with the records; give it, or that folder, to --data.source.
        workers: processes.
        patterns: TOML file that says which stems are vocals, for stems and pairs.
        dtype: of the stored samples; unset: int16 if all files are of 16 bits or lossy, else
            float32.
        sample_rate: Hz; recordings at other rates are resampled.
        record_samples: length of a record.
        overlap_samples: what it shares with the next: the longest training segment.
        songs_per_shard: songs in a file; a finished file survives an interruption.
        beam: to build with Apache Beam, its options in quotes: --beam="--runner=DirectRunner".
    """

    layout: tyro.conf.Suppress[Layout]
    source: Path
    out: Path
    workers: int = 1
    patterns: Path | None = None
    dtype: Dtype | None = None
    sample_rate: int = 44_100
    record_samples: int = 2**19
    overlap_samples: int = 2**17
    songs_per_shard: int = 4
    beam: str | None = None


Command = Build | BuildSung | BuildMusic | BuildDevset

_DESCRIPTIONS: dict[Layout, str] = {
    "musdb18hq": "Records of MUSDB18-HQ.",
    "musdb18": "Records of MUSDB18's .stem.mp4 files.",
    "stems": "Records of any folder of stems.",
    "pairs": "Records of mixtures with their vocals.",
}


def parse(arguments: list[str] | None = None) -> Command:
    """The command line."""

    def records(layout: Layout) -> Any:
        make = functools.partial(Build, layout=layout)
        described = tyro.conf.subcommand(
            layout, constructor=make, description=_DESCRIPTIONS[layout]
        )
        return Annotated[Build, described]

    commands = (
        *map(records, get_args(Layout)),
        Annotated[BuildSung, tyro.conf.subcommand("sung")],
        Annotated[BuildMusic, tyro.conf.subcommand("music")],
        Annotated[BuildDevset, tyro.conf.subcommand("devset")],
    )
    command: Command = tyro.cli(  # type: ignore[call-overload]
        Union[commands],  # noqa: UP007  of a tuple
        prog="python -m data_pipelines.build",
        description="Builds data sets to train on, or to judge by.",
        args=arguments,
    )
    return command


def main(command: Command) -> None:
    """Builds what the command says."""
    if isinstance(command, BuildSung):
        build_sung(command)
    elif isinstance(command, BuildMusic):
        build_music(command)
    elif isinstance(command, BuildDevset):
        build_devset(command)
    else:
        build_records(command)


def build_records(command: Build) -> None:
    """Builds, or finds what was built, and reports."""
    if command.workers < 1:
        raise UserError(f"--workers {command.workers}: expected 1 or more")
    check_writable(command.out)
    builder = RecordsBuilder(_config(command), _runner(command), data_dir=str(command.out))
    console = Console()
    if builder.folder.exists():
        check_same_format(builder.folder, builder.record_format)
        console.print(
            f"{builder.folder} is there already; delete it to build it anew", markup=False
        )
    else:
        _build(builder)
    tables = {split: builder.folder / table_name(split) for split in SPLITS}
    reports = {
        split: report
        for split, path in tables.items()
        if path.exists()
        and ((report := summarise(read_table(path), command.sample_rate)).songs or report.left_out)
    }
    print_report(reports, console)
    text = json.dumps(as_json(reports), indent=2, ensure_ascii=False)
    write_bytes(builder.folder / REPORT, text.encode())
    console.print(f"built; train on it with --data.source {builder.folder}", markup=False)


def _config(command: Build) -> BuildConfig:
    default = PAIRS if command.layout == "pairs" else STEMS
    return BuildConfig(
        layout=command.layout,
        source=command.source,
        patterns=None if command.patterns is None else read_patterns(command.patterns, default),
        dtype=command.dtype,
        sample_rate=command.sample_rate,
        record_samples=command.record_samples,
        overlap_samples=command.overlap_samples,
        songs_per_shard=command.songs_per_shard,
    )


def _runner(command: Build) -> Runner:
    if command.beam is None:
        return InProcesses(command.workers)
    from data_pipelines.builders.beam import OnBeam

    return OnBeam(tuple(shlex.split(command.beam)))


def _build(builder: RecordsBuilder) -> None:
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(builder.name, total=None)
        # TFDS tells of downloads that there are none of.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.build(lambda done, total: bar.update(task, completed=done, total=total))


if __name__ == "__main__":
    logging.getLogger("absl").setLevel(logging.ERROR)
    with one_line_errors():
        main(parse())
