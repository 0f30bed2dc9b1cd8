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
import os
import shlex
import signal
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union, get_args

import tyro
from rich.console import Console

from data_pipelines.builders.layouts import Layout
from data_pipelines.devset.build import BuildDevset, build_devset
from data_pipelines.music import BuildMusic, build_music
from data_pipelines.processes import map_unordered
from data_pipelines.record_format import table_name
from data_pipelines.song_folders import check_same
from data_pipelines.song_table import read_table
from data_pipelines.source import SPLITS
from data_pipelines.sung.build import BuildSung, build_sung
from diffsep_jax.arguments import arguments
from diffsep_jax.errors import PreemptedError, UserError, check_at_least, one_line_errors
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.lock import only_run
from diffsep_jax.runtime import launched_by_mpi

with one_line_errors():
    from data_pipelines.builders.beam import write_on_beam
    from data_pipelines.builders.builder import BuildConfig, RecordsBuilder
    from data_pipelines.builders.report import print_report, summarise
    from data_pipelines.builders.shards import write_shard

REPORT = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build(BuildConfig):
    """Builds a data set of records for training from a folder of audio files.

    Attributes:
        out: gets LAYOUT/VERSION with the records; give it, or that folder, to --data.source.
        workers: processes.
        beam: to build with Apache Beam, its options in quotes: --beam="--runner=DirectRunner".
    """

    out: Path
    workers: int = 1
    beam: str | None = None


Command = Build | BuildSung | BuildMusic | BuildDevset

_DESCRIPTIONS: dict[Layout, str] = {
    "musdb18hq": "Records of MUSDB18-HQ.",
    "musdb18": "Records of MUSDB18's .stem.mp4 files.",
    "stems": "Records of any folder of stems.",
    "pairs": "Records of mixtures with their vocals.",
}


def parse(given: list[str] | None = None) -> Command:
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
        args=arguments(given),
    )
    return command


def main(command: Command) -> None:
    """Runs the command."""
    if (sign := launched_by_mpi(os.environ)) is not None:
        raise UserError(
            f"{sign}, so several processes would do the same work; start one process with --workers"
        )
    signal.signal(signal.SIGTERM, _preempt)
    if isinstance(command, BuildSung):
        build_sung(command)
    elif isinstance(command, BuildMusic):
        build_music(command)
    elif isinstance(command, BuildDevset):
        build_devset(command)
    else:
        build_records(command)


def _preempt(*_: object) -> NoReturn:
    raise PreemptedError("finished parts stay; run the same command again for the rest")


def build_records(command: Build) -> None:
    """Builds the records, unless they exist, and prints what they hold."""
    check_at_least(command, workers=1)
    if command.beam is not None and command.workers != 1:
        raise UserError(
            f"workers is {command.workers}; expected it to be left out with --beam, whose options"
            " set the number"
        )
    check_writable(command.out)
    if command.beam is None:
        run = functools.partial(map_unordered, write_shard, workers=command.workers)
    else:
        run = functools.partial(write_on_beam, shlex.split(command.beam))
    builder = RecordsBuilder(command, run, data_dir=str(command.out))
    with only_run(command.out):
        _build(builder, command.sample_rate)


def _build(builder: RecordsBuilder, sample_rate: int) -> None:
    console = Console()
    if builder.folder.exists():
        check_same(builder.folder / "metadata.json", dataclasses.asdict(builder.record_format))
        console.print(f"{builder.folder} exists; delete it to build it again", markup=False)
    else:
        # Hides what TFDS prints about downloads; this build downloads nothing.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.build()
    tables = {split: builder.folder / table_name(split) for split in SPLITS}
    reports: dict[str, dict[str, Any]] = {
        split: report
        for split, path in tables.items()
        if path.exists() and (report := summarise(read_table(path), sample_rate))
        if report["songs"] or report["left_out"]
    }
    print_report(reports, console)
    text = json.dumps(reports, indent=2, ensure_ascii=False)
    write_bytes(builder.folder / REPORT, text.encode())
    console.print(f"built; train on it with --data.source {builder.folder}", markup=False)


if __name__ == "__main__":
    logging.getLogger("absl").setLevel(logging.ERROR)
    with one_line_errors():
        main(parse())
