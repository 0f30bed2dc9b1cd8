"""Audio as blocks of float32 samples: arrays, files, resampling in a stream.

FFmpeg decodes all formats except Ogg Vorbis and ALAC in CAF, which libsndfile decodes.

One rule decides whether a file is whole: what decodes is compared with the length that its header
states, in seconds or in bytes, and with the bytes of the file. Some formats state no length, and
their end cannot be checked: raw AAC, mp3 without an encoder's tag, MPEG-TS, and files that were
written to a pipe. Encoder delay and padding stay as FFmpeg leaves them, but for the padding that
an mp4's last AAC packet does not count.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
import soundfile as sf
import soxr
from av.stream import Disposition
from jaxtyping import Float32

from diffsep_jax.audio.headers import (
    MPEG_FRAME,
    chunks_end,
    has_rest,
    joined_mp3_end,
    ogg_streams,
    samples_end,
    stated_bytes,
    stated_seconds,
)
from diffsep_jax.errors import UserError

Block = Float32[np.ndarray, "time channel"]

BLOCK_FRAMES = 65_536

# Other rates mean a damaged header, and resampling from them could make a block arbitrarily long.
SAMPLE_RATES = (1_000, 1_000_000)

# Encoders delay sound and picture a little; from this difference on it is audible.
_LATE_SECONDS = 0.1

# How much may be missing: writers of headers miscount by some bytes, and lossy codecs in containers
# pad and trim by a frame or two.
_EXACT_SECONDS, _LOSSY_SECONDS = 0.001, 0.1


@runtime_checkable
class AudioSource(Protocol):
    """Mono or stereo audio that can be read from its start more than once, block by block."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    def blocks(self) -> Iterator[Block]: ...


@dataclasses.dataclass(frozen=True)
class AudioArray:
    """Audio in memory as an `AudioSource`: float32 `[time, channel]` at `sample_rate` Hz."""

    audio: Block
    sample_rate: int
    name: str = "waveform"

    def __post_init__(self) -> None:
        _check_format(self.name, self.sample_rate, self.num_channels)

    @property
    def num_channels(self) -> int:
        return self.audio.shape[1]

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self.audio), BLOCK_FRAMES):
            yield self.audio[start : start + BLOCK_FRAMES]


class AudioFile:
    """An audio file as an `AudioSource`.

    Args:
      path: path of the file.
      stream: number of the audio stream, from 0 on; None is the default one.
      sample_rate: rate in Hz to which `blocks` resamples; None is the file's own.
      allow_damaged: read what can be read of a file that is not whole.

    Attributes:
      notes: messages for the user: which of several streams is read, audio that starts after the
        picture, damage. `blocks` adds more.

    Raises:
      UserError: the file is missing, empty, not audio, smaller than its header states, neither
        mono nor stereo, or has no such stream. `blocks` raises it if samples are missing or cannot
        be decoded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        stream: int | None = None,
        sample_rate: int | None = None,
        *,
        allow_damaged: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.notes: list[str] = []
        self._stream, self._allow_damaged = stream, allow_damaged
        try:
            if self.path.is_dir():
                raise UserError(f"{path}: is a folder; expected an audio file")
            if not self.path.is_file():
                os.stat(self.path)  # raises with the reason, except for pipes and devices
                raise UserError(f"{path}: not a regular file; expected one, as audio is read twice")
            if self.path.stat().st_size == 0:
                raise UserError(f"{path}: the file is empty; expected audio")
            with self.path.open("rb") as file:
                header = file.read(35)
            # FFmpeg cannot decode most ALAC in CAF.
            is_alac_in_caf = header.startswith(b"caff") and header[28:32] == b"alac"
            # FFmpeg miscounts the end of short ones, and of joined ones libsndfile reads the first.
            is_vorbis = header.endswith(b"\x01vorbis") and ogg_streams(self.path) == (1, True)
            self._is_for_sndfile = is_alac_in_caf or (is_vorbis and not stream)
            if is_alac_in_caf and chunks_end(self.path, 8, 4, 8, "big") > self.path.stat().st_size:
                self._report_damage("its end is missing")
            if self._is_for_sndfile:
                with sf.SoundFile(os.fsencode(self.path)) as file:
                    first = (file.samplerate, file.channels) if file.frames else None
            else:
                with contextlib.closing(self._frames()) as frames:
                    frame = next(frames, None)
                # The header of a stream may give half of the true rate.
                first = (frame.sample_rate, frame.layout.nb_channels) if frame else None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except (av.FFmpegError, sf.SoundFileError):
            raise UserError(
                f"{path}: not an audio file that can be read; expected wav, flac, ogg, mp3, m4a, "
                "mp4 or another format of FFmpeg, whole"
            ) from None
        if first is None:
            raise UserError(f"{path}: no samples; expected at least one")
        self._own_rate, self.num_channels = first
        _check_format(self.name, self._own_rate, self.num_channels)
        self.sample_rate: int = sample_rate or self._own_rate

    def blocks(self) -> Iterator[Block]:
        """The samples from the start, in blocks of up to `BLOCK_FRAMES`; PCM full scale is 1."""
        blocks = self._decode_by_sndfile() if self._is_for_sndfile else self._decode()
        return resample_blocks(blocks, self._own_rate, self.sample_rate)

    def _decode_by_sndfile(self) -> Iterator[Block]:
        decoded = 0
        try:
            with sf.SoundFile(os.fsencode(self.path)) as file:
                while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                    decoded += len(block)
                    yield block
                missing = (file.frames - decoded) / self._own_rate
        except sf.SoundFileError:
            self._report_damage(f"it cannot be decoded after {decoded / self._own_rate:.3f} s")
        else:
            if missing > 0:
                self._report_damage(f"{missing:.3f} s are missing")

    def _decode(self) -> Iterator[Block]:
        resampler = av.AudioResampler("fltp", frame_size=BLOCK_FRAMES)
        decoded = 0
        try:
            for frame in self._frames():
                shape = frame.sample_rate, frame.layout.nb_channels
                if shape != (self._own_rate, self.num_channels):
                    self._report_damage(f"rate or channels change at sample {decoded}")
                    break
                decoded += frame.samples
                frame.pts = None  # in joined files time starts again
                for block in resampler.resample(frame):
                    yield np.ascontiguousarray(block.to_ndarray().T)
            for block in resampler.resample(None):
                yield np.ascontiguousarray(block.to_ndarray().T)
        except OSError as error:
            raise UserError(
                f"{self.name}: cannot be read any more: {error.strerror or error}; is the disk"
                " still there?"
            ) from None

    def _frames(self) -> Generator[av.AudioFrame]:
        """The frames of the stream that can be decoded. Raises FFmpegError if there is no audio.

        Damage is reported at the end, or before the first frame if the file's size shows it.
        """
        size, joined_end = self.path.stat().st_size, joined_mp3_end(self.path)
        stated = joined_end or stated_bytes(self.path)
        ends = [end for end in (stated, samples_end(self.path)) if 0 < end < size]
        stale = [end for end in ends if has_rest(self.path, end)]
        options = {
            "protocol_whitelist": "file",  # a playlist must not make FFmpeg fetch anything
            "max_probe_packets": "1",  # FFmpeg would search every wav for DTS, which takes long
            "ignore_length": str(int(bool(stale))),  # if stale, read a wav to the end of the file
        }
        with self.path.open("rb") as file:
            is_mpeg = re.match(MPEG_FRAME, file.read(2))
        with av.open(
            f"file:{self.path}",
            format="mp3" if is_mpeg else None,  # FFmpeg takes short files for something else
            options=options,
            metadata_errors="replace",
        ) as container:
            streams = container.streams.audio
            if not streams:
                raise UserError(f"{self.name}: has no audio stream; expected audio")
            default = (
                i for i, each in enumerate(streams) if each.disposition & Disposition.default
            )
            number = next(default, 0) if self._stream is None else self._stream
            if number not in range(len(streams)):
                raise UserError(
                    f"{self.name}: has no audio stream {number}; expected 0 to {len(streams) - 1}"
                )
            if self._stream is None and len(streams) > 1:
                self._note(
                    f"has audio streams 0 to {len(streams) - 1}; using {number}, the default;"
                    " --stream selects another"
                )
            stream = streams[number]
            if stream.codec_context is None:
                raise UserError(f"{self.name}: FFmpeg has no decoder for its audio; convert it")
            for picture in container.streams.video:
                late = _start_seconds(stream) - _start_seconds(picture)
                if late > _LATE_SECONDS and not picture.disposition & Disposition.attached_pic:
                    self._note(f"its audio starts {late:.3f} s after its picture")
            bit_rate = (stream if len(container.streams) == 1 else container).bit_rate or 1
            if stated > size and 8 * (stated - size) > _EXACT_SECONDS * bit_rate:
                missing = 8 * (stated - size) / bit_rate
                self._report_damage(f"about {missing:.3f} s are missing at its end")
            # A large avi continues with another RIFF.
            if stale and container.format.name != "avi":
                self._report_rest(size - min(stale), bit_rate)
            if container.format.name == "ogg" and not ogg_streams(self.path)[1]:
                self._report_damage("the last page of its Ogg stream is missing")
            if stream.codec_context.codec.lossless:
                # Otherwise FFmpeg gives noise where a checksum is wrong.
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            is_mp3 = container.format.name == "mp3"
            is_aac_in_mp4 = "mp4" in container.format.name and stream.codec_context.name == "aac"
            decoded, end, end_byte = 0.0, 0.0, 0
            is_broken = False
            try:
                for packet in container.demux():
                    if packet.pts is not None and packet.time_base is not None:
                        time = (packet.pts + (packet.duration or 0)) * packet.time_base
                        end = max(end, float(time))
                    if packet.stream.index == stream.index:
                        end_byte = max(end_byte, (packet.pos or 0) + packet.size)
                        if is_mp3 and bytes(packet).startswith((b"ID3", b"TAG")):
                            continue  # of a joined file
                        for frame in stream.decode(packet):
                            if is_aac_in_mp4:
                                frame = _without_padding(frame, packet)
                            decoded += frame.samples / frame.sample_rate
                            yield frame
            except OSError:  # some of FFmpeg's errors, too
                raise
            except av.FFmpegError:
                is_broken = True
            seconds, is_of_stream = stated_seconds(container, stream)
            seconds *= not joined_end  # the first file's, or a guess
            missing = seconds - (decoded if is_of_stream else max(decoded, end))
            is_exact = stream.codec_context.codec.lossless or is_mp3
            if missing > (_EXACT_SECONDS if is_exact and is_of_stream else _LOSSY_SECONDS):
                self._report_damage(f"{missing:.3f} of {seconds:.3f} s are missing")
            elif is_broken:
                self._report_damage(f"it cannot be decoded after {decoded:.3f} s")
            is_raw = container.format.name in ("wav", "w64", "caf") and end_byte
            if is_raw and has_rest(self.path, end_byte):
                self._report_rest(size - end_byte, bit_rate)

    def _report_rest(self, num_bytes: int, bit_rate: int) -> None:
        if (seconds := 8 * num_bytes / bit_rate) > _EXACT_SECONDS:
            self._report_damage(f"about {seconds:.3f} s follow the end that its header states")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _report_damage(self, what: str) -> None:
        """Raises UserError unless damage is allowed."""
        if not self._allow_damaged:
            raise UserError(
                f"{self.name}: truncated or damaged: {what}; get the whole file, or take what can"
                " be read: diffsep separate --allow-damaged, or ffmpeg -i INPUT rest.wav"
            )
        self._note(f"truncated or damaged: {what}")


def _without_padding(frame: av.AudioFrame, packet: av.Packet) -> av.AudioFrame:
    """The frame of an AAC packet, if it is the last one without what follows the stated end."""
    stream, duration = packet.stream, packet.duration or 0
    end = (stream.start_time or 0) + (stream.duration or 0)
    if packet.pts is None or packet.time_base is None or packet.pts + duration != end:
        return frame
    num_samples = round(duration * packet.time_base * frame.sample_rate)
    if not 0 < num_samples < frame.samples:
        return frame
    planes: Any = np.ascontiguousarray(frame.to_ndarray()[:, :num_samples])
    whole = av.AudioFrame.from_ndarray(planes, frame.format.name, frame.layout.name)
    whole.sample_rate = frame.sample_rate
    return whole


def _start_seconds(stream: av.AudioStream | av.VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def finite_blocks(source: AudioSource) -> Iterator[Block]:
    """The blocks of `source`. Raises UserError at a NaN or infinity, or if there are no samples."""
    position = 0
    for block in source.blocks():
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            first = position + int(np.argmin(finite))
            raise UserError(
                f"{source.name}: NaN or infinity at sample {first} "
                f"({first / source.sample_rate:.3f} s); expected finite samples; repair the file"
            )
        position += len(block)
        yield block
    if position == 0:
        raise UserError(
            f"{source.name}: no samples at {source.sample_rate} Hz; expected at least one"
        )


def read_audio(path: str | os.PathLike[str], stream: int | None = None) -> tuple[Block, int]:
    """A whole file: float32 `[time, channel]`, sample rate in Hz. Raises UserError if it is bad."""
    source = AudioFile(path, stream)
    return np.concatenate(list(finite_blocks(source))), source.sample_rate


def resample_blocks(blocks: Iterable[Block], from_rate: int, to_rate: int) -> Iterator[Block]:
    """The same audio at another rate in Hz; the result does not depend on the blocks.

    n samples become floor(n to_rate / from_rate + 1/2).
    """
    if from_rate == to_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(
                from_rate, to_rate, block.shape[1], dtype="float32", quality="VHQ"
            )
        yield stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, block.shape[1]), np.float32), last=True)


def _check_format(name: str, sample_rate: int, num_channels: int) -> None:
    if num_channels not in (1, 2):
        raise UserError(
            f"{name}: {num_channels} channels; expected mono or stereo; "
            "mix it down first, e.g. ffmpeg -i INPUT -ac 2 stereo.wav"
        )
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise UserError(f"{name}: sample rate is {sample_rate} Hz; expected {low} to {high} Hz")
