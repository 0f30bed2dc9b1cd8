"""Written stems: what comes back from each format, what is clipped, and all of them or none."""

import contextlib
import itertools
import resource
import signal
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import signal as dsp

from diffsep_jax.audio import write as write_module
from diffsep_jax.audio.read import AudioFile, read_audio
from diffsep_jax.audio.write import (
    FORMATS,
    OutputFormat,
    stems_writer,
    to_samples,
    write_wav,
)
from diffsep_jax.errors import UserError

RATE = 44_100
LENGTHS = (1, 2, 1151, 1152, 1153, RATE + 7)
PCM = [("wav", "pcm16"), ("wav", "pcm24"), ("wav", "pcm32"), ("flac", "pcm16"), ("flac", "pcm24")]


def noise(num_frames=30_011, num_channels=2, seed=0):
    """Noise below an eighth of the rate, which lossy codecs keep; its peak is near 0.5."""
    white = np.random.default_rng(seed).normal(0, 0.3, (num_frames + 200, num_channels))
    b, a = dsp.butter(6, 0.25)
    return dsp.lfilter(b, a, white, axis=0)[200:].astype(np.float32)


def writing(paths, output, num_frames, rate=48_000, num_channels=2, **options):
    shape = {"sample_rate": rate, "num_channels": num_channels, "num_frames": num_frames}
    return stems_writer(paths, output, **shape, **options)


def write(folder, output, stems, *, rate=RATE, block=5000):
    paths = {name: folder / f"{name}.{output.format}" for name in stems}
    num_frames, num_channels = next(iter(stems.values())).shape
    with writing(paths, output, num_frames, rate, num_channels) as writer:
        for start in range(0, num_frames, block):
            for name, audio in stems.items():
                writer.write(name, audio[start : start + block])
    return paths, writer


def decode(folder, output, audio, rate=RATE):
    paths, _ = write(folder, output, {"a": audio}, rate=rate)
    decoded, decoded_rate = read_audio(paths["a"])
    assert decoded_rate == rate
    if output.format == "m4a":  # which libsndfile cannot read
        with av.open(paths["a"]) as container:
            stream = container.streams.audio[0]
            assert stream.duration * stream.time_base * rate == len(audio)
    else:
        assert sf.info(paths["a"]).frames == len(audio)
    if output.format == "mp3" and rate < 32_000:  # FFmpeg does not take off all padding
        assert 0 <= len(decoded) - len(audio) < 576
    else:
        assert len(decoded) == len(audio)
    return decoded[: len(audio)]


def snr_db(audio, decoded):
    return float(10 * np.log10(np.square(audio).sum() / np.square(decoded - audio).sum()))


@given(
    block=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 9), st.integers(1, 2)),
        elements=st.floats(-2, 2, width=32),
    ),
    bits=st.sampled_from([16, 24, 32]),
)
@example(np.array([[1.0], [-1.0], [1 - 2.0**-15], [-1.00001]], np.float32), 16)
def test_pcm_is_the_nearest_number_or_is_counted(block, bits):
    samples, clipped = to_samples(block, f"pcm{bits}")
    assert not (samples & (1 << (32 - bits)) - 1).any()
    samples = samples >> (32 - bits)
    scaled = block.astype(np.float64) * 2.0 ** (bits - 1)
    too_high, too_low = scaled >= 2 ** (bits - 1) - 0.5, scaled < -(2 ** (bits - 1)) - 0.5
    assert clipped == np.count_nonzero(too_high | too_low)
    assert (samples[too_high] == 2 ** (bits - 1) - 1).all()
    assert (samples[too_low] == -(2 ** (bits - 1))).all()
    held = ~(too_high | too_low)
    assert (np.abs(samples - scaled)[held] <= 0.5).all()


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
@pytest.mark.parametrize(("format_", "subtype"), PCM)
def test_pcm_comes_back_as_it_was_rounded(tmp_path, format_, subtype, rate):
    output = OutputFormat(format=format_, subtype=subtype)
    for num_frames, num_channels in itertools.product(LENGTHS, (1, 2)):
        audio = 2 * noise(num_frames, num_channels)  # some of it past full scale
        samples, _ = to_samples(audio, subtype)
        expected = (samples / 2.0**31).astype(np.float32)
        assert np.array_equal(decode(tmp_path, output, audio, rate), expected)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_float_wav_comes_back_bitwise(tmp_path, num_channels):
    """Over full scale, too."""
    audio = np.random.default_rng(0).normal(0, 1, (30_011, num_channels)).astype(np.float32)
    write_wav(tmp_path / "a.wav", audio, 48_000)
    info = sf.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (48_000, num_channels, "FLOAT")
    decoded, rate = read_audio(tmp_path / "a.wav")
    assert rate == 48_000
    assert np.array_equal(decoded, audio)


@pytest.mark.parametrize("subtype", ["float32", "pcm16", "pcm24", "pcm32"])
def test_a_wav_past_4_gib_is_rf64(tmp_path, monkeypatch, subtype):
    output = OutputFormat(subtype=subtype)
    frame_bytes = 2 * int(subtype[-2:]) // 8
    paths, shape = {"a": tmp_path / "a.wav"}, {"sample_rate": RATE, "num_channels": 2}

    def format_of(num_bytes):
        with (
            contextlib.suppress(KeyboardInterrupt),
            stems_writer(paths, output, num_frames=num_bytes // frame_bytes, **shape) as writer,
        ):
            found = writer.files["a"].format
            raise KeyboardInterrupt
        return found

    assert format_of(2**32 - 2**16) == "WAV"
    assert format_of(2**32 - 2**15) == "RF64"

    monkeypatch.setattr(write_module, "_LARGEST_WAV_BYTES", 0)
    decode(tmp_path, output, noise(100))
    data = bytearray((tmp_path / "a.wav").read_bytes())
    num_frames = 2**32 // frame_bytes + 12_345  # what follows is a hole in the file
    size = len(data) + (num_frames - 100) * frame_bytes
    data[20:44] = b"".join(
        number.to_bytes(8, "little") for number in (size - 8, num_frames * frame_bytes, num_frames)
    )
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(data)
        file.truncate(size)
    assert sf.info(tmp_path / "a.wav").frames == num_frames
    assert AudioFile(tmp_path / "a.wav").num_channels == 2


@pytest.mark.parametrize(
    ("format_", "rate"),
    [
        *itertools.product(["mp3", "ogg", "m4a"], [8_000, 22_050, 44_100, 48_000]),
        ("ogg", 96_000),
        ("m4a", 96_000),
        ("opus", 48_000),
    ],
)
def test_lossy_formats_keep_length_time_and_level(tmp_path, format_, rate):
    output = OutputFormat(format=format_)
    for num_frames, num_channels in itertools.product(LENGTHS, (1, 2)):
        audio = noise(num_frames, num_channels)
        decoded = decode(tmp_path, output, audio, rate)
        if num_frames > RATE:
            correlation = dsp.correlate(decoded[:, 0], audio[:, 0], method="fft")
            assert np.argmax(correlation) == num_frames - 1  # no delay
            # Vorbis couples the channels, which costs noise that differs between them a little.
            least_db, tolerance = {
                "mp3": (30, 0.002),
                "ogg": (12, 0.05),
                "opus": (19, 0.01),
                "m4a": (14, 0.06),  # at 96 kHz
            }[format_]
            assert snr_db(audio, decoded) > least_db
            level = float((audio * decoded).sum() / np.square(audio).sum())
            assert level == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize(("format_", "least_db"), [("mp3", 15), ("ogg", 15), ("opus", 60)])
def test_another_decoder_finds_the_same_samples(tmp_path, format_, least_db):
    audio = noise()
    decoded = decode(tmp_path, OutputFormat(format=format_), audio, 48_000)
    path = tmp_path / f"a.{format_}"
    if format_ == "opus":
        audio, other = decoded, sf.read(path, dtype="float32")[0]
    else:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        other = np.concatenate(frames, axis=1).T
    assert other.shape == audio.shape
    assert snr_db(audio, other) > least_db


@pytest.mark.parametrize("bitrate_kbps", [64, 128, 160, 192, 224, 256, 320])
def test_mp3_has_its_bitrate_and_the_level_of_the_samples(tmp_path, bitrate_kbps):
    """LAME alone would lower the level by up to 5% below 256 kbps."""
    output = OutputFormat(format="mp3", bitrate_kbps=bitrate_kbps)
    tones = np.sin(2 * np.pi * np.array([220, 1554]) * np.arange(10 * RATE)[:, None] / RATE)
    audio = (0.9 * tones).astype(np.float32)
    decoded = decode(tmp_path, output, audio)
    assert float((audio * decoded).sum() / np.square(audio).sum()) == pytest.approx(1, abs=0.002)
    size = (tmp_path / "a.mp3").stat().st_size
    assert 8 * size / 10 / 1000 == pytest.approx(bitrate_kbps, rel=0.01)


@pytest.mark.parametrize(
    ("format_", "bitrate_kbps", "rate", "channels", "least", "most"),
    [
        ("mp3", None, 8_000, 2, 62.1, 65.9),
        ("mp3", None, 22_050, 2, 155.2, 164.8),
        ("mp3", None, 44_100, 2, 310.4, 329.6),
        ("ogg", None, 44_100, 2, 200, 320),
        ("opus", None, 48_000, 2, 230, 272),
        ("opus", 320, 48_000, 1, 230, 272),  # more than mono has
        ("m4a", None, 44_100, 2, 240, 290),
    ],
)
def test_lossy_formats_are_of_high_bitrates_by_default(
    tmp_path, format_, bitrate_kbps, rate, channels, least, most
):
    output = OutputFormat(format=format_, bitrate_kbps=bitrate_kbps)
    white = np.random.default_rng(0).normal(0, 0.1, (10 * rate, channels)).astype(np.float32)
    paths, _ = write(tmp_path, output, {"a": white}, rate=rate)
    assert least < 8 * paths["a"].stat().st_size / 10 / 1000 < most


@pytest.mark.parametrize("format_", FORMATS)
def test_a_folder_may_be_named_like_a_protocol(tmp_path, monkeypatch, format_):
    monkeypatch.chdir(tmp_path)
    output = OutputFormat(format=format_)
    paths, _ = write(Path("live: 2020"), output, {"a": noise(2000)}, rate=48_000)
    assert len(read_audio(paths["a"])[0]) >= 2000


@pytest.mark.parametrize(
    ("format_", "subtype"),
    [*PCM, ("wav", "float32"), ("mp3", None), ("ogg", None), ("opus", None), ("m4a", None)],
)
def test_samples_past_full_scale_are_counted_by_stem(tmp_path, format_, subtype):
    loud, quiet = noise(seed=1), noise(seed=2)
    loud /= np.abs(loud).max()
    loud[[5, 5000, 9999], 1] = 1.5, -1.25, 1.125
    loud[loud == 1] = 0.99
    _, writer = write(
        tmp_path,
        OutputFormat(format=format_, subtype=subtype),
        {"loud": loud, "quiet": quiet},
        rate=48_000,
    )
    assert writer.clipped == {"loud": 0 if subtype == "float32" else 3, "quiet": 0}
    assert writer.peak == 1.5


@pytest.mark.parametrize("format_", FORMATS)
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old(tmp_path, format_):
    """The second stem fails when the first one is whole."""
    paths = {name: tmp_path / f"{name}.{format_}" for name in ("a", "b")}
    for path in paths.values():
        path.write_bytes(b"old")

    def write_and_fail():
        with writing(paths, OutputFormat(format=format_), 200) as writer:
            writer.write("a", np.zeros((200, 2), np.float32))
            writer.write("b", np.zeros((100, 2), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    assert {path.read_bytes() for path in paths.values()} == {b"old"}


@pytest.fixture
def alarm():
    """Is set when SIGALRM comes, which raises KeyboardInterrupt."""
    rang = threading.Event()

    def interrupt(*_):
        rang.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield rang
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("format_", FORMATS)
def test_an_interrupt_is_never_lost_in_an_encoder(tmp_path, capfd, format_):
    audio = noise(20_000)

    def write_until_interrupted(seconds):
        with writing({"a": tmp_path / "a"}, OutputFormat(format=format_), len(audio)) as writer:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                writer.write("a", audio)

    for milliseconds in range(1, 40, 3):
        with pytest.raises(KeyboardInterrupt):
            write_until_interrupted(milliseconds / 1000)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@contextlib.contextmanager
def files_up_to(num_bytes):
    """The system refuses to let a file grow past a limit, in place of a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_full_disk_is_one_line_at_the_block_that_does_not_fit(tmp_path, format_):
    subtype = "pcm16" if format_ == "wav" else None
    output = OutputFormat(format=format_, subtype=subtype)
    blocks = [noise(70_000, seed=seed) for seed in range(20)]
    written = []

    def write_blocks():
        with writing({"b": tmp_path / "b"}, output, 1_400_000) as writer:
            for block in blocks:
                writer.write("b", block)
                written.append(block)

    with (
        files_up_to(120_000),
        pytest.raises(UserError, match=r"b: cannot be written: .*Is the disk full\?$"),
    ):
        write_blocks()
    assert len(written) < 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
def test_an_interrupt_ends_a_write_to_a_full_disk(tmp_path, format_):
    def write_and_interrupt():
        with writing({"b": tmp_path / "b"}, OutputFormat(format=format_), 5000) as writer:
            writer.write("b", noise(4000))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            raise KeyboardInterrupt

    with files_up_to(1_000_000), pytest.raises(KeyboardInterrupt):
        write_and_interrupt()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", [64, 1000, 10_000])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path, format_, missing):
    """Encoders keep the last samples to themselves until the file is closed."""
    output = OutputFormat(format=format_)
    paths, _ = write(tmp_path, output, {"a": noise(30_011)}, rate=48_000)
    data = paths["a"].read_bytes()
    with (
        files_up_to(len(data) - missing),
        pytest.raises(UserError, match=r"a\.\w+: cannot be written.*Is the disk full\?$"),
    ):
        write(tmp_path, output, {"a": noise(30_011)}, rate=48_000)
    assert list(tmp_path.iterdir()) == [paths["a"]]
    assert paths["a"].read_bytes() == data
    for thread in threading.enumerate():
        if thread.name == "diffsep-encoder":
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "flac", "subtype": "float32"}, "with flac; expected one of pcm24, pcm16"),
        ({"format": "mp3", "subtype": "pcm16"}, "subtype is pcm16 with mp3; expected none"),
        ({"bitrate_kbps": 320}, "bitrate_kbps is 320 with wav; expected format mp3"),
        ({"format": "mp3", "bitrate_kbps": 31}, "bitrate_kbps is 31; expected one of 32, 40, 48"),
        ({"format": "ogg", "bitrate_kbps": 192}, "bitrate_kbps is 192 with ogg; expected"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(UserError, match=message) as error:
        OutputFormat(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "rate", "message"),
    [
        ({"format": "mp3"}, 96_000, "is 96000 Hz with mp3; expected one of 8000, .*--sample-rate"),
        ({"format": "opus"}, 44_100, "is 44100 Hz with opus; expected 48000 Hz"),
        ({"format": "ogg"}, 200_001, "is 200001 Hz with ogg; expected 8000 to 200000 Hz"),
        ({"format": "ogg"}, 7_999, "is 7999 Hz with ogg; expected 8000 to 200000 Hz"),
        ({"format": "flac"}, 655_360, "is 655360 Hz with flac; expected 1 to 655350 Hz"),
        ({"format": "mp3", "bitrate_kbps": 320}, 22_050, "320 at 22050 Hz; .* one of 64, 80"),
    ],
)
def test_rates_that_a_format_does_not_have_name_the_file(options, rate, message):
    with pytest.raises(UserError, match=f"^song.wav: .*{message}") as error:
        OutputFormat(**options).check(rate, "song.wav")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format_", ["flac", "ogg"])
def test_the_highest_rates_are_written(tmp_path, format_):
    rate = {"flac": 655_350, "ogg": 200_000}[format_]
    decode(tmp_path, OutputFormat(format=format_), noise(1000), rate)


def test_an_interrupt_is_never_lost_while_files_are_read_back(tmp_path, monkeypatch, alarm):
    """In the main thread PyAV loses every fifth or so."""
    check_whole, milliseconds = write_module._check_whole, iter(range(1, 31))

    def check_again_and_again(*arguments):
        signal.setitimer(signal.ITIMER_REAL, next(milliseconds) / 1000)
        until = time.monotonic() + 10
        while not alarm.is_set() and time.monotonic() < until:
            check_whole(*arguments)

    monkeypatch.setattr(write_module, "_check_whole", check_again_and_again)
    for _ in range(30):
        alarm.clear()
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, OutputFormat(format="flac"), {"a": noise(20_000)})
    assert not list(tmp_path.iterdir())
