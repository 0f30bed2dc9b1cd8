"""Songs in folders of audio files: song/{mixture,vocals}.wav, or song/{vocals,any other stems}.wav.

What is vocals, mixture and accompaniment is decided as by `python -m data_pipelines.build stems`;
where a song has a mixture, its other stems are not read. WAV, FLAC and AIFF at the wanted rate are
read in place; songs at other rates, or in formats that cannot seek to the sample, are converted
once into the cache.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from data_pipelines.builders.layouts import audio_files, recording_of
from data_pipelines.builders.patterns import STEMS
from data_pipelines.cache import cache_folder, cached
from data_pipelines.dsp import Stereo
from data_pipelines.recordings import (
    AUDIO_SUFFIXES,
    Recording,
    StemFile,
    as_stereo,
    pad,
    read_stems,
    visible,
)
from data_pipelines.source import Segment, block_rms, check_range, mixture_rms
from diffsep_jax.audio.read import AudioFile
from diffsep_jax.errors import UserError

_SEEKABLE = (".wav", ".flac", ".aif", ".aiff")
_MOST_FRAMES = 2**40
"""A header with more than this states no length: the stream was never finished."""
_ROUNDING_SECONDS = 0.1
"""How far the length of a lossy file may differ from the one in its header."""
_VERSION = 2
"""Part of the cache's file names; incremented when the content of the files changes."""


class SongFiles(NamedTuple):
    """A song's files, all of one length and rate.

    Attributes:
        recording: vocals, and the mixture or other stems.
        num_frames: length in samples.
        rate: Hz.
    """

    recording: Recording
    num_frames: int
    rate: int

    def num_samples(self, sample_rate: int) -> int:
        """Length at another rate."""
        return max(1, round(self.num_frames * sample_rate / self.rate))

    def needs_conversion(self, sample_rate: int) -> bool:
        """Whether the song cannot be read in place."""
        suffixes = (file.path.suffix.lower() for file in self.recording.files)
        return self.rate != sample_rate or any(suffix not in _SEEKABLE for suffix in suffixes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderSongs:
    """A source that reads a folder of song folders; mono files become stereo.

    Attributes:
        sample_rate: rate of every segment in Hz, whatever the files' rates.
        cache_dir: folder for converted songs; None: a folder in the user's cache.

    Raises:
        UserError: naming the folder or file, on opening: no songs, a song without vocals or with
            nothing else, stems that differ in length or rate, an unreadable, truncated or
            empty file, more than two channels. NaN or infinite samples are found on reading.
    """

    path: str
    sample_rate: int = 44100
    cache_dir: str | None = None
    songs: tuple[SongFiles, ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "songs", _scan(Path(self.path)))

    def __len__(self) -> int:
        return len(self.songs)

    def name(self, song: int) -> str:
        return self.songs[song].recording.name

    def num_samples(self, song: int) -> int:
        return self.songs[song].num_samples(self.sample_rate)

    def segment(self, song: int, start: int, length: int) -> Segment:
        num_samples = self.num_samples(song)
        check_range(self.name(song), start, length, num_samples)
        files = self.songs[song]
        if files.needs_conversion(self.sample_rate):
            # Mapped files keep what was read in memory; one that is read whole is not kept.
            opened = _converted if length < num_samples else _converted.__wrapped__
            audio = opened(files, self.sample_rate, cache_folder(self.cache_dir))
            vocals, accompaniment = np.array(audio[:, start : start + length])
            return Segment(vocals=vocals, accompaniment=accompaniment)
        recording = files.recording
        vocals = _read_sum(recording.vocals, start, length)
        if recording.mixture is not None:
            return Segment(vocals, _read(recording.mixture, start, length) - vocals)
        return Segment(vocals, _read_sum(recording.others, start, length))

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        """RMS of the vocals block by block; the first call for a song reads its vocals."""
        return _activity(self.songs[song], self.sample_rate, cache_folder(self.cache_dir))

    def level(self, song: int) -> float:
        """RMS of the whole song's mixture; the first call for a song reads all of it."""
        return _level(self, song)


def _scan(root: Path) -> tuple[SongFiles, ...]:
    if not root.is_dir():
        raise UserError(
            f"data folder {root}: no such folder; expected 'embedded' or a folder with a folder for"
            " each song"
        )
    folders = (path for path in visible(root) if os.path.isdir(path))
    songs = tuple(song for folder in folders if (song := _scan_song(folder)) is not None)
    if not songs:
        raise UserError(
            f"data folder {root}: no songs in it; expected folders with "
            f"mixture and vocals, or vocals and other stems ({', '.join(AUDIO_SUFFIXES)}); "
            "python -m data_pipelines.build takes other layouts"
        )
    return songs


def _scan_song(folder: Path) -> SongFiles | None:
    """The song in a folder; None where the folder holds no audio at all."""
    if not audio_files(folder):
        return None
    recording = recording_of(folder, folder.name, patterns=STEMS)
    if recording.mixture is not None:
        recording = dataclasses.replace(recording, others=())
    vocals = recording.vocals[0]
    frames, rate = _info(vocals.path)
    for file in recording.files[1:]:
        other_frames, other_rate = _info(file.path)
        if other_rate != rate:
            raise UserError(
                f"{file.path}: {other_rate} Hz; expected {rate} Hz, as in {vocals.path.name}: the"
                " files of a song must share one rate"
            )
        if other_frames != frames:
            raise UserError(
                f"{file.path}: {other_frames} samples; expected {frames}, as in {vocals.path.name}:"
                " the files of a song must have one length"
            )
    return SongFiles(recording, frames, rate)


def _info(path: Path) -> tuple[int, int]:
    """Frames and sample rate of a file."""
    if path.suffix.lower() in (".m4a", ".mp4"):
        raise UserError(
            f"{path}: {path.suffix[1:]} in a folder of songs; expected wav, flac, aiff, ogg, opus"
            " or mp3, or records of the folder: python -m data_pipelines.build stems"
        )
    AudioFile(path)  # refuses a file that its headers show to be cut, which soundfile shortens
    with _sndfile_errors(path):
        info = soundfile.info(os.fsencode(path))
    if not 0 < info.frames < _MOST_FRAMES:
        raise UserError(f"{path}: its header states no samples; save it again as wav or flac")
    return info.frames, info.samplerate


def _read(file: StemFile, start: int, length: int) -> Stereo:
    """Part of a file that can seek, as stereo float32."""
    path = file.path
    with _sndfile_errors(path), soundfile.SoundFile(os.fsencode(path)) as opened:
        opened.seek(start)
        if opened.subtype == "PCM_16":  # three times as fast as libsndfile's own conversion
            stored = opened.read(length, dtype="int16", always_2d=True)
            audio = stored * np.float32(1 / 32768)
        else:
            audio = opened.read(length, dtype="float32", always_2d=True)
            if not np.isfinite(audio).all():
                bad = start + int(np.flatnonzero(~np.isfinite(audio).all(axis=1))[0])
                raise UserError(f"{path}: NaN or infinity at sample {bad}; repair the file")
    if len(audio) != length:
        raise UserError(
            f"{path}: ends at sample {start + len(audio)}; expected the length in its header"
        )
    return as_stereo(audio)


def _read_sum(files: Sequence[StemFile], start: int, length: int) -> Stereo:
    """Part of several files, added up."""
    total = _read(files[0], start, length)
    for file in files[1:]:
        total = total + _read(file, start, length)
    return total


@contextlib.contextmanager
def _sndfile_errors(path: Path) -> Iterator[None]:
    """Errors of libsndfile become a UserError of one line."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or error
        raise UserError(f"{path}: cannot be read as audio ({reason})") from error


@functools.lru_cache(maxsize=256)  # each holds a file descriptor
def _converted(
    files: SongFiles, sample_rate: int, folder: Path
) -> Float[np.ndarray, "2 time channel"]:
    """A whole song at the wanted rate, memory-mapped: vocals, then accompaniment."""

    def convert() -> np.ndarray:
        length = files.num_samples(sample_rate)
        stems = read_stems(files.recording, sample_rate)[:2]
        decoded, stated = len(stems[0]) / sample_rate, length / sample_rate
        if decoded - stated > _ROUNDING_SECONDS:  # of joined files, the first one's length
            raise UserError(
                f"{files.recording.vocals[0].path.parent}: {decoded:.2f} s decode of a file whose"
                f" header states {stated:.2f} s; convert it to wav"
            )
        return np.stack([pad(stem[:length], length) for stem in stems])

    return cached(_cache_path(files, sample_rate, folder, "stems"), convert)


@functools.lru_cache(maxsize=4096)
def _activity(files: SongFiles, sample_rate: int, folder: Path) -> Float[np.ndarray, "block"]:
    def measure() -> np.ndarray:
        if files.needs_conversion(sample_rate):
            return block_rms(np.asarray(_converted(files, sample_rate, folder)[0]))
        return block_rms(_read_sum(files.recording.vocals, 0, files.num_frames))

    path = _cache_path(files, sample_rate, folder, "activity")
    return np.array(cached(path, measure))  # a copy: no file descriptor for each song


@functools.lru_cache(maxsize=2**16)
def _level(source: FolderSongs, song: int) -> float:
    folder = cache_folder(source.cache_dir)
    path = _cache_path(source.songs[song], source.sample_rate, folder, "level")
    return float(cached(path, lambda: np.array(mixture_rms(source, song))))


def _cache_path(files: SongFiles, sample_rate: int, folder: Path, kind: str) -> Path:
    """A name that changes with any file's place, size or time."""
    key = [str(_VERSION), str(sample_rate)]
    for file in files.recording.files:
        status = file.path.stat()
        key.append(f"{file.path.resolve()} {status.st_size} {status.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    return folder / f"folder-{digest}-{kind}.npy"
