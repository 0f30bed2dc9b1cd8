"""Encoders: stems written together as wav, flac, mp3 or Ogg Vorbis, all of them whole or none.

The same samples give the same bytes. Whatever the format, `read_audio` gives as many samples as
were written, each at its place: PCM bit for bit what it was rounded to, mp3 and Vorbis near it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from diffsep_jax import lossy
from diffsep_jax.decoding import BLOCK_FRAMES, Block
from diffsep_jax.encoders import (
    Encode,
    OutputFile,
    flac_encoder,
    full_scale,
    mp3_encoder,
    open_output,
    open_staging,
    to_samples,
    vorbis_encoder,
    wav_encoder,
)
from diffsep_jax.errors import UserError
from diffsep_jax.output import replacing_together

FORMATS = ("wav", "flac", "mp3", "ogg")

# The first is the default.
_SUBTYPES = {"wav": ("float32", "pcm16", "pcm24", "pcm32"), "flac": ("pcm24", "pcm16")}
_BITRATES = {"mp3": lossy.MP3_BITRATES, "ogg": lossy.VORBIS_BITRATES}
_DEFAULT_BITRATES = {"mp3": 320, "ogg": 256}
_CLIPS = ("clamp", "rescale", "refuse")
_SAMPLE_RATES = {"ogg": lossy.VORBIS_SAMPLE_RATES, "flac": (1, 655_350)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """How stems are written.

    Attributes:
      format: wav, flac, mp3 or ogg.
      subtype: of wav, float32 (the default) or PCM; of flac, pcm24 (the default) or pcm16.
      bitrate_kbps: of mp3, constant, 320 by default; of ogg (Vorbis), nominal, 256 by default. The
        default is the highest that a sample rate allows where that is less.
      clip: what happens past full scale where the format cannot hold it, so not with float32.
        clamp: the samples are clipped and counted. rescale: one gain for all stems brings the
        highest peak to full scale, so they still add up, to gain x mixture. refuse: an error.

    Raises:
      UserError: a value out of range, or that does not go with `format`.
    """

    format: Literal["wav", "flac", "mp3", "ogg"] = "wav"
    subtype: Literal["float32", "pcm16", "pcm24", "pcm32"] | None = None
    bitrate_kbps: int | None = None
    clip: Literal["clamp", "rescale", "refuse"] = "clamp"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format {self.format}, expected one of {', '.join(FORMATS)}")
        if self.clip not in _CLIPS:
            raise UserError(f"clip {self.clip}, expected one of {', '.join(_CLIPS)}")
        subtypes = _SUBTYPES.get(self.format, ())
        if self.subtype is not None and self.subtype not in subtypes:
            expected = f"one of {', '.join(subtypes)}" if subtypes else "none: it has a bitrate"
            raise UserError(f"subtype {self.subtype} with {self.format}, expected {expected}")
        if self.bitrate_kbps is not None:
            if subtypes:
                raise UserError(
                    f"bitrate {self.bitrate_kbps} kbps with {self.format}, expected a subtype "
                    f"({', '.join(subtypes)}) or format mp3 or ogg"
                )
            self._check_bitrate(_BITRATES[self.format], self.format)
        if self.clip == "rescale" and self.can_exceed_full_scale:
            raise UserError(
                "clip rescale with float32, which holds any peak; choose another subtype or format"
            )

    @property
    def extension(self) -> str:
        """Of file names, without a dot."""
        return self.format

    @property
    def sample_type(self) -> str | None:
        """`subtype` or its default; None for mp3 and ogg."""
        return self.subtype or _SUBTYPES.get(self.format, (None,))[0]

    @property
    def can_exceed_full_scale(self) -> bool:
        """Whether a sample may be past 1, as float32 may."""
        return self.sample_type == "float32"

    def bitrate_at(self, sample_rate: int, num_channels: int) -> int:
        """`bitrate_kbps` or its default, of mp3 or ogg, for what `check` has passed."""
        if self.bitrate_kbps is not None:
            return self.bitrate_kbps
        allowed = self._bitrates(sample_rate, num_channels)
        return min(_DEFAULT_BITRATES[self.format], allowed[-1])

    def check(self, sample_rate: int, num_channels: int, name: str = "") -> None:
        """UserError, which starts with `name`, unless the format takes this rate in Hz."""
        start = f"{name}: " if name else ""
        expected = None
        if self.format == "mp3" and sample_rate not in lossy.MP3_SAMPLE_RATES:
            expected = f"one of {', '.join(map(str, lossy.MP3_SAMPLE_RATES))} Hz"
        elif self.format in _SAMPLE_RATES:
            low, high = _SAMPLE_RATES[self.format]
            if not low <= sample_rate <= high:
                expected = f"{low} to {high} Hz"
            elif self.format == "flac" and sample_rate >= 2**16 and sample_rate % 10:
                expected = "a multiple of 10 Hz above 65535 Hz"
        if expected is not None:
            raise UserError(
                f"{start}sample rate {sample_rate} Hz with {self.format}, expected {expected}; "
                "choose another sample rate or format"
            )
        if self.bitrate_kbps is not None:
            self._check_bitrate(
                self._bitrates(sample_rate, num_channels),
                f"{self.format} at {sample_rate} Hz and {num_channels} channel(s)",
                name,
            )

    def _bitrates(self, sample_rate: int, num_channels: int) -> tuple[int, ...]:
        if self.format == "mp3":
            return lossy.mp3_bitrates(sample_rate)
        return lossy.vorbis_bitrates(sample_rate, num_channels)

    def _check_bitrate(self, allowed: tuple[int, ...], place: str, name: str = "") -> None:
        assert self.bitrate_kbps is not None
        if self.format == "mp3":
            is_allowed = self.bitrate_kbps in allowed
            expected = f"one of {', '.join(map(str, allowed))}"
        else:
            is_allowed = allowed[0] <= self.bitrate_kbps <= allowed[-1]
            expected = f"{allowed[0]} to {allowed[-1]}"
        if not is_allowed:
            start = f"{name}: " if name else ""
            raise UserError(
                f"{start}bitrate {self.bitrate_kbps} kbps with {place}, expected {expected}"
            )


@contextlib.contextmanager
def stems_writer(
    paths: Mapping[str, Path],
    output: OutputFormat,
    *,
    sample_rate: int,
    num_channels: int,
    num_frames: int,
) -> Iterator["StemsWriter"]:
    """Writes a file for each stem, of exactly `num_frames` samples, in bounded memory.

    The files appear under their names when all are whole; on any error or interrupt none is there,
    and earlier ones stay. They are written beside their final names, in folders that exist.

    Raises:
      UserError: what `OutputFormat.check` refuses; a file cannot be written; clip is refuse and a
        sample is past full scale.
      ValueError: more or fewer samples than announced.
    """
    output.check(sample_rate, num_channels, str(next(iter(paths.values()), "")))
    rate = sample_rate, num_channels
    with replacing_together(list(paths.values())) as temporaries, contextlib.ExitStack() as stack:
        stems = {
            stem: _Stem(
                path,
                stack.enter_context(_encoder(path, temporary, output, num_frames, *rate)),
                stack.enter_context(open_staging(path)) if output.clip == "rescale" else None,
            )
            for (stem, path), temporary in zip(paths.items(), temporaries, strict=True)
        }
        writer = StemsWriter(stems, output, num_channels)
        yield writer
        writer.finish(num_frames)


@dataclasses.dataclass
class _Stem:
    path: Path
    encode: Encode
    staged: OutputFile | None  # with rescale: float32 samples until the gain is known
    num_frames: int = 0
    clipped: int = 0
    peak: float = 0.0


class StemsWriter:
    """What `stems_writer` gives. The figures are final when it has ended.

    Attributes:
      gain: what every stem was multiplied by: 1, unless clip is rescale and something would clip.
    """

    def __init__(self, stems: dict[str, _Stem], output: OutputFormat, num_channels: int) -> None:
        self.gain = 1.0
        self._stems = stems
        self._output = output
        self._num_channels = num_channels

    @property
    def clipped(self) -> dict[str, int]:
        """By stem, samples past full scale that were clipped: those that PCM cannot round to, or
        over 1 in mp3 and ogg. 0 with float32, and with rescale."""
        return {name: stem.clipped for name, stem in self._stems.items()}

    @property
    def peak(self) -> float:
        """The largest magnitude over all stems, as given, before any clipping or gain."""
        return max((stem.peak for stem in self._stems.values()), default=0.0)

    def write(self, stem: str, block: Block) -> None:
        """Appends float32 samples `[time, channel]`, finite, to a stem."""
        if block.ndim != 2 or block.shape[1] != self._num_channels:
            raise ValueError(f"block is {block.shape}, expected {self._num_channels} channels")
        target = self._stems[stem]
        target.num_frames += len(block)
        target.peak = max(target.peak, float(np.abs(block).max(initial=0.0)))
        samples, clipped = to_samples(block, self._output.sample_type)
        target.clipped += clipped
        if target.staged is None:
            target.encode(samples)
        else:
            target.staged.write(block.tobytes())

    def finish(self, num_frames: int) -> None:
        """Called by `stems_writer` when all samples are there."""
        for stem in self._stems.values():
            if stem.num_frames != num_frames:
                raise ValueError(
                    f"{stem.path}: {stem.num_frames} samples written, {num_frames} were announced"
                )
        clips = any(self.clipped.values())
        if clips and self._output.clip == "refuse":
            self._refuse()
        if clips and self._output.clip == "rescale":
            self.gain = full_scale(self._output.sample_type) / self.peak
        for stem in self._stems.values():
            if stem.staged is not None:
                stem.clipped = 0
                self._encode_staged(stem)

    def _refuse(self) -> None:
        stem = next(stem for stem in self._stems.values() if stem.clipped)
        held = self._output.sample_type or self._output.format
        raise UserError(
            f"{stem.path}: {stem.clipped} samples are past full scale, which {held} cannot hold "
            f"(peak {stem.peak:.3f}); write float32 wav, or choose --clip clamp or rescale"
        )

    def _encode_staged(self, stem: _Stem) -> None:
        assert stem.staged is not None
        frame_bytes = 4 * self._num_channels
        for data in stem.staged.read_blocks(BLOCK_FRAMES * frame_bytes):
            block = np.frombuffer(data, np.float32).reshape(-1, self._num_channels)
            samples, clipped = to_samples(block, self._output.sample_type, self.gain)
            stem.clipped += clipped
            stem.encode(samples)


@contextlib.contextmanager
def _encoder(
    path: Path, temporary: Path, output: OutputFormat, num_frames: int, *rate: int
) -> Iterator[Encode]:
    with open_output(path, temporary) as file:
        if output.format == "wav":
            encoder = wav_encoder(file, output.sample_type or "", num_frames, *rate)
        elif output.format == "flac":
            encoder = flac_encoder(file, output.sample_type or "", *rate)
        elif output.format == "mp3":
            encoder = mp3_encoder(file, output.bitrate_at(*rate), *rate)
        else:
            encoder = vorbis_encoder(file, output.bitrate_at(*rate), *rate)
        with encoder as encode:
            yield encode


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
