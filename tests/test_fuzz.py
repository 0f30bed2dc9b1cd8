"""A thousand files of every kind, whole and broken: each ends in its stems or in one clear line."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from containers import encode
from halving import Chunks
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diffsep_jax.audio.read import read_audio
from diffsep_jax.audio.write import OutputFormat
from diffsep_jax.errors import UserError
from diffsep_jax.inference.files import FileJob, FileOptions, separate_files
from diffsep_jax.inference.settings import PAPER
from diffsep_jax.inference.track import STEMS

RATES = (1_000, 8_000, 11_025, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000)
MP3_RATES = (8_000, 11_025, 22_050, 32_000, 44_100, 48_000)
WRITTEN = [
    ("wav", ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    ("aiff", ("PCM_S8", "PCM_16", "PCM_24", "FLOAT")),
    ("flac", ("PCM_S8", "PCM_16", "PCM_24")),
    ("ogg", ("VORBIS",)),
    ("mp3", ("MPEG_LAYER_III",)),
    ("w64", ("PCM_16", "FLOAT")),
    ("caf", ("PCM_16", "FLOAT")),
    ("au", ("PCM_16", "FLOAT")),
]
ENCODED = [  # by FFmpeg, with tags: extension, codec, its sample format
    ("m4a", ("aac", "fltp")),
    ("m4a", ("alac", "s16p")),
    ("webm", ("libopus", "flt")),
    ("mka", ("pcm_s16le", "s16")),
    ("mp3", ("libmp3lame", "fltp")),
]
INEXACT = ("ogg", "mp3", "m4a", "webm", "mka")
"""What codecs pad."""
OUTPUTS = [
    OutputFormat(),
    OutputFormat(subtype="pcm16"),
    OutputFormat(subtype="pcm24"),
    OutputFormat(format="flac"),
    OutputFormat(format="flac", subtype="pcm16"),
    OutputFormat(format="mp3"),
    OutputFormat(format="ogg"),
]


@st.composite
def files(draw):
    """(extension, subtype or codec, rate, channels, length, level, seed)"""
    if draw(st.integers(0, 3)) == 0:
        extension, codec = draw(st.sampled_from(ENCODED))
        shape = draw(st.integers(1, 2)), draw(st.integers(1, 20_000))
        return extension, codec, 48_000, *shape, 0.1, draw(st.integers(0, 99))
    extension, subtypes = draw(st.sampled_from(WRITTEN))
    rate = draw(st.sampled_from(MP3_RATES if extension == "mp3" else RATES))
    return (
        extension,
        draw(st.sampled_from(subtypes)),
        rate,
        draw(st.sampled_from((1, 2, 2, 2, 3))) if extension != "mp3" else draw(st.integers(1, 2)),
        draw(st.one_of(st.integers(0, 5), st.integers(0, 20_000))),
        draw(st.sampled_from((0.0, 0.1, 0.9))),
        draw(st.integers(0, 99)),
    )


damages = st.one_of(
    st.just(None),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("header"), st.integers(0, 79), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("middle"), st.floats(0, 1), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("more"), st.binary(min_size=1, max_size=64)),
)


def write(path, subtype, rate, channels, length, level, seed):
    audio = level * np.random.default_rng(seed).uniform(-1, 1, (length, channels))
    if isinstance(subtype, tuple):
        codec, sample_format = subtype
        encode(path, audio.astype(np.float32), codec, sample_format=sample_format, rate=rate)
        return
    sf.write(path, audio.astype(np.float32), rate, subtype=subtype)


def damage(path, how):
    data = bytearray(path.read_bytes())
    match how:
        case None:
            return
        case ("cut", share):
            data = data[: int(share * len(data))]
        case ("header", at, new):
            data[at : at + len(new)] = new
        case ("middle", share, new):
            at = int(share * len(data))
            data[at : at + len(new)] = new
        case ("more", new):
            data += new
    path.write_bytes(data)


def halve(mixture, starts):
    return mixture / 2


MODEL = Chunks(halve, 4096, stride=128, batch_size=2)


@pytest.mark.slow
@settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    file=files(),
    how=damages,
    output=st.sampled_from(OUTPUTS),
    excerpt=st.sampled_from([(0.0, None), (0.0, 0.05), (0.1, None), (0.01, 0.02)]),
    sample_rate=st.sampled_from([None, None, 22_050, 44_100]),
)
@example(  # an odd number of bytes
    file=("aiff", "PCM_S8", 1000, 1, 1, 0.0, 0),
    how=None,
    output=OUTPUTS[0],
    excerpt=(0.0, None),
    sample_rate=None,
)
@example(  # a sample rate of 0 Hz
    file=("caf", "PCM_16", 1000, 1, 0, 0.0, 0),
    how=("middle", 0.005, b"\x00"),
    output=OUTPUTS[0],
    excerpt=(0.0, None),
    sample_rate=None,
)
def test_any_file_gives_stems_or_one_line(capfd, file, how, output, excerpt, sample_rate):
    extension, _, rate, channels, length, *_ = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"song.{extension}"
        write(path, *file[1:])
        if extension == "aiff":  # libsndfile counts the byte that pads an odd number of them
            length = sf.info(path).frames
        damage(path, how)
        out = Path(folder) / "out"
        outputs = {stem: out / f"{stem}.{output.format}" for stem in STEMS}
        options = FileOptions(
            output=output,
            sample_rate=sample_rate,
            start_seconds=excerpt[0],
            duration_seconds=excerpt[1],
        )
        job = FileJob(path, outputs)
        [result] = separate_files([job], MODEL, PAPER, options, overlap=0.2)
        assert capfd.readouterr() == ("", "")  # nor do the libraries say anything of their own
        if result.error is not None:
            assert isinstance(result.error, UserError)
            message = str(result.error)
            assert "\n" not in message
            assert str(path) in message or str(out) in message
            assert not out.exists()
            # What is whole is refused for a reason that stands in the file itself.
            if how is None:
                assert (
                    channels > 2
                    or 2 * length * (sample_rate or rate) < rate  # nothing is left of it
                    or (
                        extension == "mp3" and "no samples" in message
                    )  # of one sample, none is left
                    or "start is" in message
                    or "kHz" in message
                    or " Hz" in message
                ), message
            return
        assert sorted(out.iterdir()) == sorted(outputs.values())
        if how is not None:
            return
        start = round(excerpt[0] * (sample_rate or rate))
        for path in outputs.values():
            stem, stem_rate = read_audio(path)
            assert stem_rate == (sample_rate or rate)
            assert stem.shape[1] == channels
            if extension not in INEXACT:
                resampled = (2 * length * stem_rate + rate) // (2 * rate)
                expected = resampled - start
                if excerpt[1] is not None:
                    expected = min(expected, max(1, round(excerpt[1] * stem_rate)))
                # FFmpeg does not always take off all padding of an mp3.
                assert sf.info(path).frames == expected
                assert len(stem) == expected or output.format == "mp3"
