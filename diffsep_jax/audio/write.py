"""Stems as files: all of them whole, or none.

Libsndfile writes wav, mp3 and Ogg Vorbis, FFmpeg the others. Float32 comes back bit for bit, PCM as
it was rounded, the others near it. In every format there are as many samples as were written, each
in its place; of m4a, which states the length, other decoders may go on to the end of a frame.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import av
import numpy as np
import soundfile as sf
import tyro

from diffsep_jax.audio import encode
from diffsep_jax.audio.read import BLOCK_FRAMES, AudioFile, Block
from diffsep_jax.audio.tags import NO_TAGS, Tags, id3_tag
from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a")

# With libsndfile's names. The first is the default.
_WAV_SUBTYPES = {"float32": "FLOAT", "pcm16": "PCM_16", "pcm24": "PCM_24", "pcm32": "PCM_32"}
_SUBTYPES = {"wav": tuple(_WAV_SUBTYPES), "flac": ("pcm24", "pcm16")}
SAMPLE_RATES = {
    "flac": range(1, 655_351),
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "ogg": range(8_000, 200_001),  # libsndfile crashes outside
    "opus": (48_000,),  # as what every other rate is decoded
    "m4a": (
        *(7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000),
        *(88_200, 96_000),
    ),
}
# Constant bitrates in kbps, by the sample rate from which they hold. With lower ones the first
# frame has no room for the tag that states the length, or LAME changes the sample rate.
_MP3_BITRATES = {
    32_000: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    16_000: (64, 80, 96, 112, 128, 144, 160),
    8_000: (32, 40, 48, 56, 64),
}
# By what LAME multiplies samples at a bitrate, 0.95 at lower ones, as room for its overshoot. It is
# undone, as the stems have to add up to the mixture.
_LAME_LEVELS = {192: 0.97, 224: 0.98, 256: 1.0, 320: 1.0}
_OGG_QUALITY = 0.8  # 0 to 1; about 256 kbps in stereo
_AVERAGE_KBPS = 256  # of opus and m4a
_OGG_TAGS = ("title", "artist", "album", "genre", "date", "track", "copyright", "comment")
_LARGEST_WAV_BYTES = 2**32 - 2**16  # of samples; their number and the header's have 32 bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """How stems are written.

    Attributes:
      format: wav, flac, mp3, ogg (Vorbis of about 256 kbps), opus or m4a (AAC).
      subtype: of wav float32 (the default) or PCM; of flac pcm24 (the default) or pcm16.
      bitrate_kbps: of mp3, constant: 320, or less at a low sample rate; of opus and m4a, in the
        mean: 256.

    Raises:
      UserError: values that do not go together.
    """

    format: Literal["wav", "flac", "mp3", "ogg", "opus", "m4a"] = "wav"
    subtype: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="{float32,pcm16,pcm24,pcm32}", help_behavior_hint="(default: the format's)"
        ),
    ] = None
    bitrate_kbps: Annotated[
        int | None, tyro.conf.arg(metavar="KBPS", help_behavior_hint="(default: the format's)")
    ] = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format is {self.format}; expected one of {', '.join(FORMATS)}")
        known = _SUBTYPES.get(self.format, ())
        if self.subtype is not None and self.subtype not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise UserError(f"subtype is {self.subtype} with {self.format}; expected {expected}")
        if self.bitrate_kbps is not None and self.format not in ("mp3", "opus", "m4a"):
            raise UserError(
                f"bitrate_kbps is {self.bitrate_kbps} with {self.format}; expected format mp3, opus"
                " or m4a"
            )
        known_kbps = sorted({kbps for rates in _MP3_BITRATES.values() for kbps in rates})
        if self.bitrate_kbps not in (None, *known_kbps):
            expected = ", ".join(map(str, known_kbps))
            raise UserError(f"bitrate_kbps is {self.bitrate_kbps}; expected one of {expected}")

    @property
    def sample_type(self) -> str | None:
        """`subtype` or its default; None for lossy formats."""
        return self.subtype or next(iter(_SUBTYPES.get(self.format, ())), None)

    def kbps(self, sample_rate: int) -> int:
        """`bitrate_kbps` or its default at this rate in Hz."""
        best = _bitrates(sample_rate)[-1] if self.format == "mp3" else _AVERAGE_KBPS
        return self.bitrate_kbps or best

    def check(self, sample_rate: int, name: str = "") -> None:
        """UserError, which starts with `name`, unless the format holds this sample rate in Hz."""
        start = f"{name}: " if name else ""
        rates = SAMPLE_RATES.get(self.format, (sample_rate,))
        if sample_rate not in rates:
            expected = f"{rates[0]} to {rates[-1]}"
            if not isinstance(rates, range):
                expected = f"one of {', '.join(map(str, rates))}" if rates[1:] else str(rates[0])
            raise UserError(
                f"{start}sample rate is {sample_rate} Hz with {self.format}; expected {expected}"
                " Hz. Choose --sample-rate, or another format"
            )
        is_mp3 = self.format == "mp3" and self.bitrate_kbps is not None
        if is_mp3 and self.bitrate_kbps not in _bitrates(sample_rate):
            raise UserError(
                f"{start}bitrate_kbps is {self.bitrate_kbps} at {sample_rate} Hz; expected one of"
                f" {', '.join(map(str, _bitrates(sample_rate)))}"
            )


class StemsWriter:
    """Writes blocks to the files of `stems_writer`.

    Attributes:
      clipped: by stem, samples past full scale, which were clipped; none in float32.
      peak: the largest magnitude over all stems, before clipping.
    """

    def __init__(self, paths: Mapping[str, Path], output: OutputFormat, sample_rate: int) -> None:
        self.clipped = dict.fromkeys(paths, 0)
        self.peak = 0.0
        self.files: dict[str, sf.SoundFile | encode.EncodedFile] = {}
        self._paths = paths
        self._subtype = output.sample_type
        self._gain = np.float32(1)
        if output.format == "mp3":
            self._gain = np.float32(1 / _LAME_LEVELS.get(output.kbps(sample_rate), 0.95))

    def write(self, stem: str, block: Block) -> None:
        """Appends float32 samples `[time, channel]`, finite, to a stem."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        samples, clipped = to_samples(block, self._subtype)
        self.clipped[stem] += clipped
        if self._gain != 1:
            samples = samples * self._gain
        with _encoder_errors(self._paths[stem]):
            for start in range(0, len(samples), BLOCK_FRAMES):  # libvorbis takes them on its stack
                self.files[stem].write(np.ascontiguousarray(samples[start:][:BLOCK_FRAMES]))


@contextlib.contextmanager
def stems_writer(
    paths: Mapping[str, Path],
    output: OutputFormat,
    *,
    sample_rate: int,
    num_channels: int,
    num_frames: int,
    tags: Tags = NO_TAGS,
) -> Iterator[StemsWriter]:
    """Writes a file for each stem, of exactly `num_frames` samples, in bounded memory.

    The files appear under their names when all are whole; on any error or interrupt none does, and
    earlier ones stay. A wav of more than 4 GiB is an RF64. All have the same `tags`, but wav has
    none, and ogg no cover and fewer texts.

    Raises:
      UserError: the format does not hold this sample rate, or a file cannot be written.
    """
    output.check(sample_rate, str(next(iter(paths.values()), "")))
    writer = StemsWriter(paths, output, sample_rate)
    with contextlib.ExitStack() as renaming:
        temporaries = {
            stem: renaming.enter_context(replacing(path)) for stem, path in paths.items()
        }
        with contextlib.ExitStack() as closing:
            for stem, path in paths.items():
                closing.enter_context(_encoder_errors(path))
                shape = sample_rate, num_channels, num_frames
                file = _open(temporaries[stem], output, *shape, tags)
                writer.files[stem] = closing.enter_context(file)
            yield writer
        with contextlib.closing(encode.Worker()) as worker:
            for stem, path in paths.items():
                worker.run(functools.partial(_check_whole, temporaries[stem], path, num_frames))


def write_wav(path: Path, audio: Block, sample_rate: int) -> None:
    """Writes `[time, channel]` to a float32 wav. UserError if it cannot be written."""
    num_frames, num_channels = audio.shape
    with stems_writer(
        {"audio": path},
        OutputFormat(),
        sample_rate=sample_rate,
        num_channels=num_channels,
        num_frames=num_frames,
    ) as writer:
        writer.write("audio", audio)


def to_samples(block: Block, subtype: str | None) -> tuple[np.ndarray, int]:
    """Converts float samples to what libsndfile stores unchanged, and counts clipped samples.

    PCM of less than 32 bits is rounded to nearest and left-aligned in int32. Its full scale is
    -2^(bits-1) ... 2^(bits-1) - 1: +1 is clipped, -1 is not.

    Args:
      block: float32 samples.
      subtype: of wav or flac; None if the encoder takes floats from -1 to 1.
    """
    if subtype == "float32":
        return block, 0
    if subtype is None:
        return np.clip(block, -1, 1), int(np.count_nonzero(np.abs(block) > 1))
    bits = int(subtype.removeprefix("pcm"))
    full_scale = 2.0 ** (bits - 1)
    rounded = np.rint(block.astype(np.float64) * full_scale)
    held = np.clip(rounded, -full_scale, full_scale - 1)
    return held.astype(np.int32) << (32 - bits), int(np.count_nonzero(held != rounded))


@contextlib.contextmanager
def _open(
    path: Path,
    output: OutputFormat,
    sample_rate: int,
    num_channels: int,
    num_frames: int,
    tags: Tags,
) -> Iterator[sf.SoundFile | encode.EncodedFile]:
    if output.format in encode.FORMATS:
        bits = int(output.sample_type.removeprefix("pcm")) if output.sample_type else None
        kbps = None if bits else output.kbps(sample_rate)
        with encode.EncodedFile(
            path, output.format, sample_rate, num_channels, bits, kbps, tags
        ) as encoded:
            yield encoded
        return
    options = _sndfile_options(output, sample_rate, num_channels * num_frames)
    any_name = os.fsencode(path)  # in any locale
    with sf.SoundFile(any_name, "w", sample_rate, num_channels, **options) as file:
        if output.format == "ogg":
            for name in tags.texts.keys() & _OGG_TAGS:
                setattr(file, "tracknumber" if name == "track" else name, tags.texts[name])
        yield file
    if output.format == "mp3" and tags != NO_TAGS:
        with tempfile.TemporaryFile(dir=path.parent) as audio, path.open("rb+") as whole:
            shutil.copyfileobj(whole, audio)
            audio.seek(0)
            whole.seek(0)
            whole.write(id3_tag(tags))
            shutil.copyfileobj(audio, whole)


def _sndfile_options(output: OutputFormat, sample_rate: int, num_samples: int) -> dict[str, Any]:
    if output.format == "ogg":
        return {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - _OGG_QUALITY}
    if output.format == "mp3":
        # Its levels go from 0, the highest bitrate, to 1, the lowest one of LAME.
        lowest, highest = 32 if sample_rate >= 32_000 else 8, _bitrates(sample_rate)[-1]
        return {
            "format": "MP3",
            "subtype": "MPEG_LAYER_III",
            "bitrate_mode": "CONSTANT",
            "compression_level": (highest - output.kbps(sample_rate)) / (highest - lowest),
        }
    assert output.sample_type is not None
    num_bytes = num_samples * int(output.sample_type[-2:]) // 8
    return {
        "format": "RF64" if num_bytes > _LARGEST_WAV_BYTES else "WAV",
        "subtype": _WAV_SUBTYPES[output.sample_type],
    }


def _bitrates(sample_rate: int) -> tuple[int, ...]:
    """Valid mp3 bitrates at this sample rate, in kbps."""
    return next(rates for least, rates in _MP3_BITRATES.items() if sample_rate >= least)


def _check_whole(temporary: Path, path: Path, num_frames: int) -> None:
    """UserError unless all samples are in the file that will be `path`.

    libsndfile does not report a disk that fills up while it closes a file of compressed samples.
    """
    num_read = 0
    with contextlib.suppress(UserError):
        for block in AudioFile(temporary).blocks():
            num_read += len(block)
    if num_read < num_frames:
        raise UserError(
            f"{path}: cannot be written: read back, it has {num_read} of {num_frames} samples. Is"
            " the disk full?"
        )


@contextlib.contextmanager
def _encoder_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sf.SoundFileError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{path}: cannot be written: {reason.rstrip('.')}. Is the disk full?"
        ) from None
