"""Written stems: what comes back from each format, what is clipped, and all of them or none."""

import contextlib
import itertools
import resource
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import signal as dsp

from diffsep_jax.audio import read_audio
from diffsep_jax.encoding import FORMATS, OutputFormat, StemsWriter, stems_writer, write_wav
from diffsep_jax.errors import UserError
from diffsep_jax.wav import BITS, quantize

RATE = 44_100
LENGTHS = (1, 2, 1151, 1152, 1153, RATE + 7)
PCM = [("wav", "pcm16"), ("wav", "pcm24"), ("wav", "pcm32"), ("flac", "pcm16"), ("flac", "pcm24")]


def noise(num_frames: int = 30_011, num_channels: int = 2, seed: int = 0) -> np.ndarray:
    """Noise below an eighth of the rate, which lossy codecs keep; its peak is near 0.5."""
    white = np.random.default_rng(seed).normal(0, 0.3, (num_frames + 200, num_channels))
    b, a = dsp.butter(6, 0.25)
    return dsp.lfilter(b, a, white, axis=0)[200:].astype(np.float32)


def write(
    folder: Path,
    output: OutputFormat,
    stems: Mapping[str, np.ndarray],
    *,
    rate: int = RATE,
    block: int = 5000,
) -> tuple[dict[str, Path], StemsWriter]:
    paths = {name: folder / f"{name}.{output.extension}" for name in stems}
    num_frames, num_channels = next(iter(stems.values())).shape
    with stems_writer(
        paths, output, sample_rate=rate, num_channels=num_channels, num_frames=num_frames
    ) as writer:
        for start in range(0, num_frames, block):
            for name, audio in stems.items():
                writer.write(name, audio[start : start + block])
    return paths, writer


def decode(folder: Path, output: OutputFormat, audio: np.ndarray, rate: int = RATE) -> np.ndarray:
    paths, _ = write(folder, output, {"a": audio}, rate=rate)
    decoded, decoded_rate = read_audio(paths["a"])
    assert decoded_rate == rate
    assert decoded.shape == audio.shape
    return decoded


def snr_db(audio: np.ndarray, decoded: np.ndarray) -> float:
    return float(10 * np.log10(np.square(audio).sum() / np.square(decoded - audio).sum()))


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(("format_", "subtype"), PCM)
def test_pcm_comes_back_as_it_was_rounded(
    tmp_path: Path, format_: str, subtype: str, rate: int
) -> None:
    output = OutputFormat(format=format_, subtype=subtype)
    for num_frames, num_channels in itertools.product(LENGTHS, (1, 2)):
        audio = 2 * noise(num_frames, num_channels)  # some of it past full scale
        rounded, _ = quantize(audio, BITS[subtype])
        expected = (rounded / 2.0 ** (BITS[subtype] - 1)).astype(np.float32)
        assert np.array_equal(decode(tmp_path, output, audio, rate), expected)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("format_", ["mp3", "ogg"])
def test_lossy_formats_keep_length_time_and_level(tmp_path: Path, format_: str, rate: int) -> None:
    if (format_, rate) == ("mp3", 96_000):
        with pytest.raises(UserError, match=r"a\.mp3: sample rate 96000 Hz with mp3, expected"):
            write(tmp_path, OutputFormat(format="mp3"), {"a": noise()}, rate=rate)
        return
    output = OutputFormat(format=format_)
    for num_frames, num_channels in itertools.product(LENGTHS, (1, 2)):
        audio = noise(num_frames, num_channels)
        decoded = decode(tmp_path, output, audio, rate)
        if num_frames > RATE:
            correlation = dsp.correlate(decoded[:, 0], audio[:, 0], method="fft")
            assert np.argmax(correlation) == num_frames - 1  # no delay
            # Vorbis couples the channels, which costs noise that differs between them a little.
            least_db, tolerance = {"mp3": (30, 0.002), "ogg": (15, 0.05)}[format_]
            assert snr_db(audio, decoded) > least_db
            level = float((audio * decoded).sum() / np.square(audio).sum())
            assert level == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("format_", ["mp3", "ogg"])
def test_another_decoder_finds_the_same_samples(tmp_path: Path, format_: str) -> None:
    audio = noise()
    paths, _ = write(tmp_path, OutputFormat(format=format_), {"a": audio})
    with av.open(str(paths["a"])) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    decoded = np.concatenate(frames, axis=1).T
    assert decoded.shape == audio.shape
    assert snr_db(audio, decoded) > 15


@pytest.mark.parametrize("bitrate_kbps", [64, 128, 160, 192, 224, 256, 320])
def test_mp3_has_its_bitrate_and_the_level_of_the_samples(
    tmp_path: Path, bitrate_kbps: int
) -> None:
    """LAME alone would lower the level by up to 5% below 256 kbps."""
    output = OutputFormat(format="mp3", bitrate_kbps=bitrate_kbps)
    tones = np.sin(2 * np.pi * np.array([220, 1554]) * np.arange(10 * RATE)[:, None] / RATE)
    audio = (0.9 * tones).astype(np.float32)
    decoded = decode(tmp_path, output, audio)
    assert float((audio * decoded).sum() / np.square(audio).sum()) == pytest.approx(1, abs=0.002)
    size = (tmp_path / "a.mp3").stat().st_size
    assert 8 * size / 10 / 1000 == pytest.approx(bitrate_kbps, rel=0.01)


@pytest.mark.parametrize(
    ("rate", "num_channels", "bitrate_kbps"),
    [(44_100, 2, 64), (44_100, 2, 193), (44_100, 1, 200), (22_050, 2, 100), (44_100, 2, 500)],
)
def test_vorbis_has_its_nominal_bitrate(
    tmp_path: Path, rate: int, num_channels: int, bitrate_kbps: int
) -> None:
    output = OutputFormat(format="ogg", bitrate_kbps=bitrate_kbps)
    paths, _ = write(tmp_path, output, {"a": noise(5000, num_channels)}, rate=rate)
    data = paths["a"].read_bytes()
    (nominal,) = struct.unpack_from("<i", data, data.index(b"\x01vorbis") + 20)
    assert nominal / 1000 == pytest.approx(bitrate_kbps, abs=0.5)


def test_the_default_bitrate_is_the_highest_where_a_rate_allows_less() -> None:
    mp3, ogg = OutputFormat(format="mp3"), OutputFormat(format="ogg")
    assert [mp3.bitrate_at(rate, 2) for rate in (8_000, 22_050, 44_100)] == [64, 160, 320]
    assert ogg.bitrate_at(44_100, 2) == 256
    assert ogg.bitrate_at(44_100, 1) == 240
    assert ogg.bitrate_at(96_000, 2) == 256


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    """At another second, and cut into other blocks: longer and shorter than an encoder's."""
    audio = noise(150_000)
    outputs = [OutputFormat(format=format_) for format_ in FORMATS]
    first = [write(tmp_path, output, {"a": audio}, block=1000) for output in outputs]
    data = [paths["a"].read_bytes() for paths, _ in first]
    time.sleep(1.1)  # time stamps have seconds
    again = [write(tmp_path, output, {"a": audio}, block=70_000) for output in outputs]
    assert [paths["a"].read_bytes() for paths, _ in again] == data


@pytest.mark.parametrize(
    ("format_", "subtype"), [*PCM, ("wav", "float32"), ("mp3", None), ("ogg", None)]
)
def test_samples_past_full_scale_are_counted_by_stem(
    tmp_path: Path, format_: str, subtype: str | None
) -> None:
    loud, quiet = noise(seed=1), noise(seed=2)
    loud /= np.abs(loud).max()
    loud[[5, 5000, 9999], 1] = 1.5, -1.25, 1.125
    loud[loud == 1] = 0.99
    _, writer = write(
        tmp_path, OutputFormat(format=format_, subtype=subtype), {"loud": loud, "quiet": quiet}
    )
    assert writer.clipped == {"loud": 0 if subtype == "float32" else 3, "quiet": 0}
    assert writer.peak == 1.5
    assert writer.gain == 1


@pytest.mark.parametrize(
    ("format_", "subtype", "tolerance"),
    [("wav", "pcm16", 2**-15), ("flac", "pcm24", 2**-23), ("wav", "pcm32", 2**-24)],
)
def test_rescaled_stems_add_up_to_gain_times_mixture(
    tmp_path: Path, format_: str, subtype: str, tolerance: float
) -> None:
    vocals, rest = noise(100_000, seed=1), noise(100_000, seed=2)
    vocals[70_000] = -2.5  # behind the first block
    rest[80_000, 0] = 1.75
    output = OutputFormat(format=format_, subtype=subtype, clip="rescale")
    paths, writer = write(tmp_path, output, {"vocals": vocals, "rest": rest})
    assert (writer.peak, writer.clipped) == (2.5, {"vocals": 0, "rest": 0})
    assert writer.gain == pytest.approx(1 / 2.5, rel=2**-14)
    decoded = [read_audio(path)[0].astype(np.float64) for path in paths.values()]
    mixture = vocals.astype(np.float64) + rest
    assert np.abs(sum(decoded) - writer.gain * mixture).max() <= tolerance
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


@pytest.mark.parametrize("format_", FORMATS[1:])
def test_what_fits_is_not_rescaled(tmp_path: Path, format_: str) -> None:
    audio = noise()
    audio[100] = -1
    plain, _ = write(tmp_path, OutputFormat(format=format_), {"a": audio})
    data = plain["a"].read_bytes()
    output = OutputFormat(format=format_, clip="rescale")
    paths, writer = write(tmp_path, output, {"a": audio})
    assert writer.gain == 1
    assert paths["a"].read_bytes() == data


def test_rescaled_lossy_samples_are_at_full_scale(tmp_path: Path) -> None:
    audio = 3 * noise()
    for format_ in ("mp3", "ogg"):
        output = OutputFormat(format=format_, clip="rescale")
        paths, writer = write(tmp_path, output, {"a": audio})
        assert writer.gain == 1 / float(np.abs(audio).max())
        assert writer.clipped == {"a": 0}
        decoded, _ = read_audio(paths["a"])
        assert snr_db(np.float32(writer.gain) * audio, decoded) > 15


def test_samples_past_full_scale_are_refused(tmp_path: Path) -> None:
    audio = noise()
    output = OutputFormat(subtype="pcm24", clip="refuse")
    paths, _ = write(tmp_path, output, {"a": audio, "b": audio})
    data = paths["b"].read_bytes()
    loud = audio.copy()
    loud[[7, 8]] = 2
    message = r"b\.wav: 4 samples are past full scale, which pcm24 .*peak 2\.000.*float32.*--clip"
    with pytest.raises(UserError, match=message) as error:
        write(tmp_path, output, {"a": audio, "b": loud})
    assert "\n" not in str(error.value)
    assert paths["b"].read_bytes() == data
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old(
    tmp_path: Path, format_: str, error: type[BaseException]
) -> None:
    """The second stem fails when the first one is whole."""
    paths = {name: tmp_path / f"{name}.{format_}" for name in ("a", "b")}
    for path in paths.values():
        path.write_bytes(b"old")
    clip = "clamp" if format_ == "wav" else "rescale"

    def write_and_fail() -> None:
        with stems_writer(
            paths,
            OutputFormat(format=format_, clip=clip),
            sample_rate=RATE,
            num_channels=2,
            num_frames=200,
        ) as writer:
            writer.write("a", np.zeros((200, 2), np.float32))
            writer.write("b", np.zeros((100, 2), np.float32))
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    assert {path.read_bytes() for path in paths.values()} == {b"old"}


@pytest.mark.parametrize("format_", FORMATS)
def test_a_wrong_length_is_an_error(tmp_path: Path, format_: str) -> None:
    for given in (100, 300):
        with (
            pytest.raises(ValueError, match=f"{given} samples written, 200 were announced"),
            stems_writer(
                {"a": tmp_path / "a"},
                OutputFormat(format=format_),
                sample_rate=RATE,
                num_channels=1,
                num_frames=200,
            ) as writer,
        ):
            writer.write("a", np.zeros((given, 1), np.float32))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
def test_an_interrupt_is_never_lost_in_an_encoder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], format_: str
) -> None:
    """An exception in a callback of libsndfile would be printed, and the work would go on."""
    audio = noise(20_000)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def write_until_interrupted(seconds: float) -> None:
        with stems_writer(
            {"a": tmp_path / "a"},
            OutputFormat(format=format_),
            sample_rate=RATE,
            num_channels=2,
            num_frames=len(audio),
        ) as writer:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                writer.write("a", audio)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for milliseconds in range(1, 40, 3):
            with pytest.raises(KeyboardInterrupt):
                write_until_interrupted(milliseconds / 1000)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@contextlib.contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """The system refuses to let a file grow past a limit, in place of a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("clip", ["clamp", "rescale"])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_full_disk_is_one_line_at_the_block_that_does_not_fit(
    tmp_path: Path, format_: str, clip: str
) -> None:
    subtype = "pcm16" if format_ == "wav" else None
    output = OutputFormat(format=format_, subtype=subtype, clip=clip)
    blocks = [noise(70_000, seed=seed) for seed in range(20)]
    written = []

    def write_blocks() -> None:
        with stems_writer(
            {"b": tmp_path / "b"}, output, sample_rate=RATE, num_channels=2, num_frames=1_400_000
        ) as writer:
            for block in blocks:
                writer.write("b", block)
                written.append(block)

    with (
        files_up_to(120_000),
        pytest.raises(UserError, match=r"b: cannot be written: File too large$"),
    ):
        write_blocks()
    assert len(written) < 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path: Path, format_: str) -> None:
    """Encoders keep the last samples to themselves until the file is closed."""
    paths, _ = write(tmp_path, OutputFormat(format=format_), {"a": noise(1000)})
    size = paths["a"].stat().st_size
    data = paths["a"].read_bytes()
    with (
        files_up_to(size - 1),
        pytest.raises(UserError, match=r"a\.\w+: cannot be written: File too large$"),
    ):
        write(tmp_path, OutputFormat(format=format_), {"a": noise(1000)})
    assert list(tmp_path.iterdir()) == [paths["a"]]
    assert paths["a"].read_bytes() == data


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    for name in (".a.flac.99999998.tmp", ".a.flac.99999999.old.tmp", ".b.flac.1.tmp"):
        (tmp_path / name).write_bytes(b"half")
    write(tmp_path, OutputFormat(format="flac"), {"a": noise(100)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.flac.1.tmp", "a.flac"]


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: No such file"):
        write_wav(tmp_path / "gone" / "a.wav", noise(), RATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "flac", "subtype": "float32"}, "with flac, expected one of pcm24, pcm16"),
        ({"format": "mp3", "subtype": "pcm16"}, "with mp3, expected none: it has a bitrate"),
        ({"bitrate_kbps": 320}, "bitrate 320 kbps with wav, expected a subtype .* or format mp3"),
        ({"format": "mp3", "bitrate_kbps": 100}, "100 kbps with mp3, expected one of 32, 40"),
        ({"format": "ogg", "bitrate_kbps": 501}, "501 kbps with ogg, expected 14 to 500"),
        ({"clip": "rescale"}, "clip rescale with float32, which holds any peak; choose"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        OutputFormat(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "aiff", "format aiff, expected one of wav, flac, mp3, ogg"),
        ("clip", "wrap", "clip wrap, expected one of clamp, rescale, refuse"),
        ("subtype", "pcm8", "subtype pcm8 with wav, expected one of float32, pcm16, pcm24"),
    ],
)
def test_unknown_names_are_refused(field: str, value: str, message: str) -> None:
    """What the types forbid, which nobody checks for a user of Python."""
    output = OutputFormat()
    object.__setattr__(output, field, value)
    with pytest.raises(UserError, match=message):
        output.__post_init__()


@pytest.mark.parametrize(
    ("options", "rate", "num_channels", "message"),
    [
        ({"format": "mp3"}, 96_000, 2, "96000 Hz with mp3, expected one of 8000, 11025"),
        ({"format": "ogg"}, 200_001, 2, "200001 Hz with ogg, expected 8000 to 200000 Hz"),
        ({"format": "ogg"}, 7_999, 2, "7999 Hz with ogg, expected 8000 to 200000 Hz"),
        ({"format": "flac"}, 655_360, 2, "655360 Hz with flac, expected 1 to 655350 Hz"),
        ({"format": "flac"}, 65_537, 2, "65537 Hz with flac, expected a multiple of 10 Hz"),
        ({"format": "mp3", "bitrate_kbps": 320}, 22_050, 2, "mp3 at 22050 Hz .* one of 64, 80"),
        ({"format": "ogg", "bitrate_kbps": 256}, 44_100, 1, "ogg at 44100 Hz .* 48 to 240"),
    ],
)
def test_rates_that_a_format_does_not_have_name_the_file(
    options: dict[str, object], rate: int, num_channels: int, message: str
) -> None:
    with pytest.raises(UserError, match=f"^song.wav: .*{message}") as error:
        OutputFormat(**options).check(rate, num_channels, "song.wav")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format_", ["flac", "ogg"])
def test_the_highest_rates_are_written(tmp_path: Path, format_: str) -> None:
    rate = {"flac": 655_350, "ogg": 200_000}[format_]
    decode(tmp_path, OutputFormat(format=format_), noise(1000), rate)
