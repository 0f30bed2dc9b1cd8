"""Songs in folders of audio files: song/{mixture,vocals}.wav, or song/{vocals,any other stems}.wav.

Where a song has a mixture, the accompaniment is mixture - vocals (further stems are not read);
otherwise it is the sum of the other stems. WAV and FLAC at the wanted rate are read in place; songs
at other rates, or in formats that cannot seek to the sample, are converted once into the cache.
"""

import contextlib
import dataclasses
import functools
import hashlib
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io.wavfile
import soundfile
import soxr
from jaxtyping import Float

from data_pipelines.cache import cache_folder, write_npy
from data_pipelines.source import Segment, block_rms, check_range, mixture_rms
from diffsep_jax.audio.read import AudioFile
from diffsep_jax.errors import UserError

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_SEEKABLE = (".wav", ".flac")
_PLAIN = ("PCM_16", "FLOAT")
_WARNING_FILTERS = threading.Lock()
"""Python's filters belong to the process: two threads that set and restore them undo each other."""
_VERSION = 1
"""Part of the cache's file names: goes up when what is stored changes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderSongs:
    """A source that reads a folder of song folders; mono files become stereo.

    Raises `UserError`, naming the folder or file, on opening: no songs, a song without vocals or
    without anything beside them, stems that differ in length or rate, an unreadable, truncated or
    empty file, more than two channels. NaN or infinite samples are found on reading.
    """

    path: str
    sample_rate: int = 44100
    """What every segment has, whatever the files' rates."""
    cache_dir: str | None = None
    """Where converted songs go; by default a folder in the user's cache."""
    songs: tuple["SongFiles", ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "songs", _scan(Path(self.path)))

    def __len__(self) -> int:
        return len(self.songs)

    def name(self, song: int) -> str:
        """The song's folder name."""
        return self.songs[song].name

    def num_samples(self, song: int) -> int:
        """Length of a song at the source's rate."""
        return _resampled_length(self.songs[song], self.sample_rate)

    def segment(self, song: int, start: int, length: int) -> Segment:
        """Samples start to start + length. Raises `ValueError` beyond the song's ends."""
        num_samples = self.num_samples(song)
        check_range(self.name(song), start, length, num_samples)
        files = self.songs[song]
        if files.needs_conversion(self.sample_rate):
            # Kept open, what was read stays resident; who reads a whole song needs it no more.
            opened = _converted if length < num_samples else _converted.__wrapped__
            audio = opened(files, self.sample_rate, cache_folder(self.cache_dir))
            vocals, accompaniment = np.array(audio[:, start : start + length])
            return Segment(vocals=vocals, accompaniment=accompaniment)
        return _read(files, start, length)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        """RMS of the vocals block by block; the first call for a song reads its vocals."""
        return _activity(self.songs[song], self.sample_rate, cache_folder(self.cache_dir))

    def level(self, song: int) -> float:
        """RMS of the whole song's mixture; the first call for a song reads all of it."""
        return _level(self, song)


class SongFiles(NamedTuple):
    """The files that make up one song."""

    name: str
    vocals: Path
    mixture: Path | None
    others: tuple[Path, ...]
    """The stems of the accompaniment, where there is no mixture."""
    num_frames: int
    rate: int

    def needs_conversion(self, sample_rate: int) -> bool:
        """Whether the song cannot be read in place."""
        paths = (self.vocals, *([self.mixture] if self.mixture else self.others))
        return self.rate != sample_rate or any(p.suffix.lower() not in _SEEKABLE for p in paths)


def _scan(root: Path) -> tuple[SongFiles, ...]:
    if not root.is_dir():
        raise UserError(
            f"data folder {root}: not found; give 'embedded' or a folder with one folder per song"
        )
    try:
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        songs = tuple(song for folder in folders if (song := _scan_song(folder)) is not None)
    except OSError as error:
        raise UserError(f"data folder {root}: {error.strerror}") from error
    if not songs:
        raise UserError(
            f"data folder {root}: no songs in it; expected folders with "
            f"mixture and vocals, or vocals and other stems ({', '.join(_SUFFIXES)}); "
            "python -m data_pipelines.build takes other layouts"
        )
    return songs


def _scan_song(folder: Path) -> SongFiles | None:
    """The song in a folder; None where the folder holds no audio at all."""
    stems: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            stem = path.stem.lower()
            if stem in stems:
                raise UserError(f"{path}: a second file for this stem, beside {stems[stem].name}")
            stems[stem] = path
    if not stems:
        return None
    vocals, mixture = stems.pop("vocals", None), stems.pop("mixture", None)
    if vocals is None:
        raise UserError(f"{folder}: no vocals file among {', '.join(sorted(stems)) or 'mixture'}")
    if mixture is None and not stems:
        raise UserError(f"{folder}: vocals alone; expected a mixture or other stems beside them")
    frames, rate = _info(vocals)
    others = () if mixture else tuple(stems.values())
    for path in (mixture,) if mixture else others:
        other_frames, other_rate = _info(path)
        if other_rate != rate:
            raise UserError(
                f"{path}: {other_rate} Hz, but {vocals.name} has {rate} Hz; "
                "the files of a song must share one rate"
            )
        if other_frames != frames:
            relation = "longer" if frames > other_frames else "shorter"
            raise UserError(
                f"{vocals}: {frames} samples, {relation} than {path.name} with {other_frames}; "
                "the files of a song must have one length"
            )
    return SongFiles(folder.name, vocals, mixture, others, frames, rate)


def _info(path: Path) -> tuple[int, int]:
    """Frames and sample rate of a file."""
    AudioFile(path)  # refuses a file that its headers show to be cut, which soundfile shortens
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path}: cannot be read as audio ({_reason(error)})") from error
    if info.frames > 2**62:
        raise UserError(f"{path}: its header does not tell its length; save it anew as wav or flac")
    if info.frames <= 0:
        raise UserError(f"{path}: no samples in it")
    return info.frames, info.samplerate


def _read_file(path: Path, start: int, length: int) -> Float[np.ndarray, "time 2"]:
    """Part of a file as stereo float32, checked."""
    status = path.stat()
    plain = _plain_samples(path, status.st_size, status.st_mtime_ns)
    if plain is None:
        audio = _decode(path, start, length)
    else:
        count, offset = length * plain.num_channels, start * plain.num_channels
        stored = np.fromfile(
            path, plain.dtype, count, offset=plain.offset + offset * plain.dtype.itemsize
        )
        if plain.dtype == np.int16:
            stored = stored * np.float32(1 / 32768)
        audio = stored.reshape(-1, plain.num_channels)
    if len(audio) != length:
        raise UserError(f"{path}: ends at sample {start + len(audio)}, before its stated length")
    is_integer = plain is not None and plain.dtype == np.int16
    if not is_integer and not np.isfinite(audio).all():
        bad = start + int(np.flatnonzero(~np.isfinite(audio).all(axis=1))[0])
        raise UserError(f"{path}: NaN or infinite at sample {bad}; repair or remove the song")
    return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio


class _PlainSamples(NamedTuple):
    """Where the samples of a wav file are, that can be read as they lie there."""

    offset: int
    dtype: np.dtype
    num_channels: int


@functools.lru_cache(maxsize=2**16)
def _plain_samples(path: Path, num_bytes: int, time: int) -> _PlainSamples | None:
    """Of a wav file of int16 or float32 in this machine's byte order; None for any other.

    Reading them takes a fraction of decoding. `num_bytes` and `time` of the last change tell files
    apart.
    """
    del num_bytes, time
    try:
        if path.suffix.lower() != ".wav" or soundfile.info(path).subtype not in _PLAIN:
            return None
        with _WARNING_FILTERS, warnings.catch_warnings():  # of chunks that it does not know
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)
            samples = scipy.io.wavfile.read(path, mmap=True)[1]
    except (soundfile.LibsndfileError, ValueError, OSError):
        return None  # decoding tells what is wrong
    if samples.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
        return None
    return _PlainSamples(samples.offset, samples.dtype, samples.shape[1] if samples.ndim > 1 else 1)


def _decode(path: Path, start: int, length: int) -> Float[np.ndarray, "time channel"]:
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(start)
            return file.read(length, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path}: cannot be read as audio ({_reason(error)})") from error


def _read(files: SongFiles, start: int, length: int) -> Segment:
    """Part of a song at its own rate."""
    vocals = _read_file(files.vocals, start, length)
    if files.mixture is not None:
        return Segment(vocals, _read_file(files.mixture, start, length) - vocals)
    accompaniment = _read_file(files.others[0], start, length)
    for path in files.others[1:]:
        accompaniment += _read_file(path, start, length)
    return Segment(vocals, accompaniment)


def _resampled_length(files: SongFiles, sample_rate: int) -> int:
    return max(1, round(files.num_frames * sample_rate / files.rate))


def _cache_path(files: SongFiles, sample_rate: int, folder: Path, kind: str) -> Path:
    """A name that changes with any file's place, size or time."""
    key = [str(_VERSION), str(sample_rate)]
    for path in (files.vocals, *([files.mixture] if files.mixture else files.others)):
        status = path.stat()
        key.append(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    return folder / f"folder-{digest}-{kind}.npy"


@functools.lru_cache(maxsize=256)  # each holds a file descriptor
def _converted(
    files: SongFiles, sample_rate: int, folder: Path
) -> Float[np.ndarray, "2 time channel"]:
    """A whole song at another rate, memory-mapped: vocals, then accompaniment."""
    path = _cache_path(files, sample_rate, folder, "stems")

    def convert() -> np.ndarray:
        stems = _read(files, 0, files.num_frames)
        length = _resampled_length(files, sample_rate)
        audio = np.zeros((2, length, 2), np.float32)
        for index, stem in enumerate(stems):
            resampled = stem
            if files.rate != sample_rate:
                resampled = soxr.resample(stem, files.rate, sample_rate)[:length]
            audio[index, : len(resampled)] = resampled
        return audio

    return _cached(path, convert)


@functools.lru_cache(maxsize=4096)
def _activity(files: SongFiles, sample_rate: int, folder: Path) -> Float[np.ndarray, "block"]:
    path = _cache_path(files, sample_rate, folder, "activity")

    def measure() -> np.ndarray:
        if files.needs_conversion(sample_rate):
            vocals = np.asarray(_converted(files, sample_rate, folder)[0])
        else:
            vocals = _read_file(files.vocals, 0, files.num_frames)
        return block_rms(vocals)

    return np.array(_cached(path, measure))  # a copy: no file descriptor for each song


@functools.lru_cache(maxsize=2**16)
def _level(source: FolderSongs, song: int) -> float:
    folder = cache_folder(source.cache_dir)
    path = _cache_path(source.songs[song], source.sample_rate, folder, "level")
    return float(_cached(path, lambda: np.array(mixture_rms(source, song))))


def _cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a cache file, memory-mapped; made first where it is missing or damaged."""
    # A folder that cannot be read fails below, in writing.
    with contextlib.suppress(OSError, ValueError):
        return np.lib.format.open_memmap(path, mode="r")
    write_npy(path, make())
    return np.lib.format.open_memmap(path, mode="r")


def _reason(error: Exception) -> str:
    """The library's own words, on one line."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
