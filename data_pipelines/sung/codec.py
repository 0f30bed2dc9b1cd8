"""Stems through a lossy codec: each encoded and decoded with the same settings."""

import io

import av
import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from data_pipelines.dsp import Stereo

CODECS = ("mp3", "aac", "vorbis", "opus")

_OPUS_RATE = 48_000
_AAC_DELAY = 1024
"""Samples that FFmpeg's encoder puts before the first."""
_BLOCK = 1_500_000
"""Samples written at once: libvorbis copies the first ones to the stack, which holds 2 million."""


def through_codec(
    audio: Float[np.ndarray, "_time 2"], codec: str, strength: float, sample_rate: int
) -> Float[np.ndarray, "_time 2"]:
    """The audio after encoding and decoding, aligned to the sample.

    `strength` goes from 0 (AAC at 200 kbit/s, or the equivalent) to 1 (64 kbit/s).
    """
    if codec == "aac":
        decoded = _through_aac(audio, round(200_000 - 136_000 * strength), sample_rate)
    elif codec == "opus":
        faster = soxr.resample(audio, sample_rate, _OPUS_RATE)
        decoded = _through_soundfile(faster, _OPUS_RATE, "OGG", "OPUS", 0.3 + 0.5 * strength)
        decoded = soxr.resample(decoded, _OPUS_RATE, sample_rate)
    elif codec == "vorbis":
        decoded = _through_soundfile(audio, sample_rate, "OGG", "VORBIS", 0.4 + 0.6 * strength)
    else:
        level = 0.45 + 0.4 * strength
        decoded = _through_soundfile(audio, sample_rate, "MP3", "MPEG_LAYER_III", level)
    out = np.zeros_like(audio)
    length = min(len(audio), len(decoded))
    out[:length] = decoded[:length]
    return out


def _through_soundfile(
    audio: Stereo, sample_rate: int, container: str, subtype: str, level: float
) -> Stereo:
    """`level` is libsndfile's compression level, 0 to 1."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", sample_rate, 2, subtype, format=container, compression_level=level
    ) as encoder:
        for start in range(0, len(audio), _BLOCK):
            encoder.write(audio[start : start + _BLOCK])
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def _through_aac(audio: Stereo, bit_rate: int, sample_rate: int) -> Float[np.ndarray, "longer 2"]:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="stereo")
        stream.bit_rate = bit_rate
        planes = np.ascontiguousarray(audio.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate = sample_rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file, "r") as written:
        decoded = [frame.to_ndarray().T for frame in written.decode(audio=0)]
    return np.concatenate(decoded)[_AAC_DELAY:]
