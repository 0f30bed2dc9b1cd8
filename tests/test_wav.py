"""Our own wav files: rounding of PCM, and headers that other readers understand."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffsep_jax.audio import AudioFile, read_audio
from diffsep_jax.encoding import write_wav
from diffsep_jax.wav import BITS, pcm_bytes, quantize, wav_header

RATE = 44_100


@given(
    block=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 9), st.integers(1, 2)),
        elements=st.floats(-2, 2, width=32),
    ),
    bits=st.sampled_from([16, 24, 32]),
)
def test_pcm_is_the_nearest_number_or_is_counted(block: np.ndarray, bits: int) -> None:
    samples, clipped = quantize(block, bits)
    scaled = block.astype(np.float64) * 2.0 ** (bits - 1)
    too_high, too_low = scaled >= 2 ** (bits - 1) - 0.5, scaled < -(2 ** (bits - 1)) - 0.5
    assert clipped == np.count_nonzero(too_high | too_low)
    assert (samples[too_high] == 2 ** (bits - 1) - 1).all()
    assert (samples[too_low] == -(2 ** (bits - 1))).all()
    held = ~(too_high | too_low)
    assert (np.abs(samples - scaled)[held] <= 0.5).all()
    data = pcm_bytes(samples, bits)
    width = bits // 8
    read = [
        int.from_bytes(data[i : i + width], "little", signed=True)
        for i in range(0, len(data), width)
    ]
    assert read == samples.ravel().tolist()


def test_full_scale_is_past_full_scale_only_above() -> None:
    block = np.array([[1.0], [-1.0], [1 - 2.0**-15], [-1.00001]], np.float32)
    samples, clipped = quantize(block, 16)
    assert samples.ravel().tolist() == [32767, -32768, 32767, -32768]
    assert clipped == 1


@pytest.mark.parametrize("num_channels", [1, 2])
def test_written_wav_reads_back_bitwise(tmp_path: Path, num_channels: int) -> None:
    """Over full scale, too: float keeps it."""
    audio = np.random.default_rng(0).normal(0, 1, (30_011, num_channels)).astype(np.float32)
    write_wav(tmp_path / "a.wav", audio, 48_000)
    info = sf.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (48_000, num_channels, "FLOAT")
    decoded, _ = read_audio(tmp_path / "a.wav")
    assert np.array_equal(decoded, audio)
    with av.open(str(tmp_path / "a.wav")) as container:
        frames = list(container.decode(audio=0))
    assert sum(frame.samples for frame in frames) == len(audio)


@pytest.mark.parametrize("subtype", BITS)
def test_sizes_in_the_header_are_those_of_the_file(subtype: str) -> None:
    for num_frames in (0, 1, 2, 3):
        header = wav_header(subtype, sample_rate=RATE, num_channels=1, num_frames=num_frames)
        data_bytes = BITS[subtype] // 8 * num_frames
        riff, data = struct.unpack_from("<I", header, 4)[0], struct.unpack("<I", header[-4:])[0]
        assert data == data_bytes
        assert riff + 8 == len(header) + data_bytes + data_bytes % 2


@pytest.mark.parametrize("subtype", BITS)
def test_wav_past_4_gib_is_rf64(tmp_path: Path, subtype: str) -> None:
    """A sparse file with our header: all its samples are seen by other readers."""
    frame_bytes = BITS[subtype] // 8 * 2
    num_frames = 2**32 // frame_bytes + 12_345
    header = wav_header(subtype, sample_rate=RATE, num_channels=2, num_frames=num_frames)
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + frame_bytes * num_frames)
    info = sf.info(tmp_path / "a.wav")
    assert (info.format, info.frames) == ("RF64", num_frames)
    assert AudioFile(tmp_path / "a.wav").num_channels == 2
    num_frames = 2**32 // frame_bytes - 100
    below = wav_header(subtype, sample_rate=RATE, num_channels=2, num_frames=num_frames)
    assert below[:4] == b"RIFF"
    assert struct.unpack("<I", below[-4:])[0] == frame_bytes * num_frames
