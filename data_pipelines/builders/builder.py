"""The TFDS builder, for every layout.

TFDS' own generator writes from one process, compressed, into a folder that is lost if the build is
interrupted. This one writes shard by shard in worker processes (or on Apache Beam), keeps finished
shards until all are written, and leaves the metadata and the final folder to TFDS:
`tfds.builder_from_directory(...).as_data_source(split)` reads it as any other data set.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
import tyro
from rich.console import Console
from rich.progress import track
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from data_pipelines.builders.layouts import Layout, find
from data_pipelines.builders.shards import Shard, plan_shard, write_shard
from data_pipelines.record_format import VERSION, Dtype, RecordFormat, table_name
from data_pipelines.recordings import Recording, is_sixteen_bit
from data_pipelines.song_table import SongTable, join_tables, make_table, read_table
from data_pipelines.source import SPLITS
from diffsep_jax.errors import UserError, check_at_least

Written = tuple[Path, Path]
"""Paths of a shard's records and of its table."""

Runner = Callable[[Sequence[Shard]], Iterable[Written]]
"""Writes shards and gives the paths of each when it is finished, in any order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, and from which folder.

    Attributes:
        layout: layout of the folder, see `data_pipelines.builders.layouts`; names the data set.
        source: the folder.
        patterns: TOML file that says which stems are vocals, for stems and pairs.
        dtype: type of the stored samples; unset: int16 if all files are of 16 bits or lossy,
            else float32.
        sample_rate: Hz; recordings at other rates are resampled.
        record_samples: length of a record.
        overlap_samples: what it shares with the next.
        min_samples: shorter songs are left out; a training segment.
        songs_per_shard: songs in a file; a finished file survives an interruption.
    """

    layout: tyro.conf.Suppress[Layout]
    source: Path
    patterns: Path | None = None
    dtype: Dtype | None = None
    sample_rate: int = 44_100
    record_samples: int = 2**16
    overlap_samples: int = 0
    min_samples: int = 2**17
    songs_per_shard: int = 4


class RecordsBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds a data set of records from a folder of audio files, see `RecordFormat`.

    Raises:
        UserError: the folder is not of the layout; in `build`: no recording can be read whole.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, config: BuildConfig, run: Runner | None = None, **kwargs: Any) -> None:
        """`run`: by default in this process; `kwargs`: of TFDS, as its folder `data_dir`."""
        check_at_least(config, songs_per_shard=1)
        self._run = run or functools.partial(map, write_shard)
        self._songs_per_shard = config.songs_per_shard
        self._min_samples = config.min_samples
        self._findings = find(config.layout, config.source, config.patterns)
        self.record_format = RecordFormat(
            sample_rate=config.sample_rate,
            dtype=self._dtype(config),
            record_samples=config.record_samples,
            overlap_samples=config.overlap_samples,
        )
        self.name = config.layout
        super().__init__(file_format="array_record", **kwargs)

    @property
    def folder(self) -> Path:
        """The data set's own folder, which `build` creates."""
        return Path(self.data_dir)

    def build(self) -> None:
        """Builds the data set; continues where an earlier build was interrupted.

        On a terminal, stderr shows the progress.
        """
        self.download_and_prepare(download_dir=self._parts)
        for leftover in (self._parts, *self._parts.parent.glob("incomplete.*")):
            shutil.rmtree(leftover, ignore_errors=True)

    @property
    def _parts(self) -> Path:
        """Where finished shards are kept until all are written."""
        return Path(self.data_dir_root) / self.name / ".unfinished"

    def _dtype(self, config: BuildConfig) -> Dtype:
        if config.dtype is not None:
            return config.dtype
        files = (file for each in self._findings.recordings for file in each.files)
        return "int16" if all(map(is_sixteen_bit, files)) else "float32"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=self.record_format.features(),
            disable_shuffling=True,  # records belong to songs by their order
            metadata=tfds.core.MetadataDict(dataclasses.asdict(self.record_format)),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """TFDS calls it with `data_dir` at a temporary folder, which becomes the data set's."""
        shards = {
            shard.key: shard
            for split in SPLITS
            for shard in self._shards([r for r in self._findings.recordings if r.split == split])
        }
        stderr = Console(stderr=True)
        finished = track(
            self._run(list(shards.values())),
            self.name,
            len(shards),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        written = {records.stem: (records, read_table(table)) for records, table in finished}
        infos = []
        for split in SPLITS:
            parts = [written[key] for key, s in shards.items() if s.recordings[0].split == split]
            left_out = self._findings.left_out if split == SPLITS[0] else {}
            if info := self._collect(split, parts, left_out):
                infos.append(info)
        if not infos:
            reasons = [why for _, table in written.values() for why in table.reason]
            first = next(iter([*reasons, *self._findings.left_out.values()]))
            raise UserError(f"none of the recordings can be used; the first: {first}")
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def _shards(self, recordings: Sequence[Recording]) -> Iterator[Shard]:
        for start in range(0, len(recordings), self._songs_per_shard):
            songs = recordings[start : start + self._songs_per_shard]
            yield plan_shard(tuple(songs), self.record_format, self._min_samples, self._parts)

    def _collect(
        self, split: str, parts: Sequence[tuple[Path, SongTable]], left_out: dict[str, str]
    ) -> tfds.core.SplitInfo | None:
        """Puts a split's records and its table into the data set's folder."""
        table = join_tables([make_table([], left_out), *(table for _, table in parts)])
        table.save(self.folder / table_name(split))
        parts = [(records, table) for records, table in parts if len(table)]
        if not parts:
            return None
        template = self._get_filename_template(split_name=split)
        num_bytes = 0
        for index, (records, _) in enumerate(parts):
            path = Path(template.sharded_filepath(shard_index=index, num_shards=len(parts)))
            num_bytes += records.stat().st_size
            _link(records, path)
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[int(table.num_records.sum()) for _, table in parts],
            num_bytes=num_bytes,
            filename_template=template,
        )


def _link(source: Path, target: Path) -> None:
    """The same file under another name too; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
