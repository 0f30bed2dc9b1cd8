"""Opens what a command's `--data` names, whichever kind of source it is.

A source gives random access to any segment of any song; what is drawn from it, and how it is
augmented, is the pipeline's business.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.builders.layouts import SPLIT_FOLDERS
from data_pipelines.cache import cache_folder
from data_pipelines.combined import CombinedSongs
from data_pipelines.embedded.songs import EmbeddedSongs
from data_pipelines.folders import FolderSongs
from data_pipelines.record_format import find_data_set
from data_pipelines.recordings import visible
from data_pipelines.remote import local_records
from data_pipelines.source import Source, Split
from diffsep_jax.errors import UserError
from diffsep_jax.urls import is_url


def open_source(
    spec: str,
    *,
    split: Split = "train",
    num_songs: int = 100,
    seconds: float = 60.0,
    seed: int = 0,
    cache_dir: str | None = None,
    sample_rate: int = 44100,
) -> Source:
    """The source that a command's `--data` names: "embedded", or a folder by its path or URL.

    A folder of records (`python -m data_pipelines.build`) has its own splits. Any other folder has
    a folder for each song, or sub-folders of these, named as the splits in any of the ways of
    `builders.layouts`. If the wanted split is missing, train is taken; a folder without splits has
    the same songs for each. At a URL there must be records, which are copied first.

    Args:
        num_songs, seconds, seed: number, length and seed of embedded songs.
        cache_dir: folder for rendered, converted and copied songs; None: one in the user's cache.

    Raises:
        UserError: nothing can be read there.
    """
    if spec == "embedded":
        return EmbeddedSongs(
            split=split,
            num_songs=num_songs,
            seconds=seconds,
            seed=seed,
            cache_dir=cache_dir,
            sample_rate=sample_rate,
        )
    if is_url(spec):
        spec = str(local_records(spec, cache_folder(cache_dir)))
    found = available_split(spec, split)
    if (data_set := find_data_set(Path(spec))) is not None:
        from data_pipelines.records import RecordSongs  # imports TFDS

        return RecordSongs(path=str(data_set), split=found or "train", sample_rate=sample_rate)
    folder = _split_folder(Path(spec), found) if found else Path(spec)
    return FolderSongs(path=str(folder), cache_dir=cache_dir, sample_rate=sample_rate)


def open_sources(
    specs: Sequence[str], weights: Sequence[float] | None = None, **options: Any
) -> Source:
    """One data set, or several as one (see `CombinedSongs`), by `open_source` with its options."""
    opened = tuple(open_source(spec, **options) for spec in specs)
    if len(opened) == 1:
        return opened[0]
    chosen = None if weights is None else tuple(weights)
    return CombinedSongs(names=tuple(specs), sources=opened, weights=chosen)


def available_split(spec: str, wanted: Split) -> Split | None:
    """The split that `open_source` reads: `wanted` or, if that is missing, train.

    None for a folder without splits. Raises `UserError` for a damaged data set.
    """
    if spec == "embedded":
        return wanted
    if (data_set := find_data_set(Path(spec))) is not None:
        from data_pipelines.records import split_names  # imports TFDS

        return wanted if wanted in split_names(data_set) else "train"
    either: tuple[Split, Split] = (wanted, "train")
    return next((split for split in either if _split_folder(Path(spec), split)), None)


def _split_folder(root: Path, split: Split) -> Path | None:
    """The sub-folder of a split, by any of its names. Raises UserError if there are two."""
    found = [
        path
        for path in (visible(root) if root.is_dir() else ())
        if SPLIT_FOLDERS.get(path.name.lower()) == split and os.path.isdir(path)
    ]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"{root}: {names} in it; expected one folder of {split} songs")
    return found[0] if found else None
