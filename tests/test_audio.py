"""Audio files: every format gives its samples, every bad file one clear line."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
import soxr
from av.stream import Disposition
from containers import encode

from diffsep_jax.audio.read import (
    AudioFile,
    AudioSource,
    finite_blocks,
    read_audio,
)
from diffsep_jax.errors import UserError

RATE = 44_100


def music(num_frames=30_011, num_channels=2):
    """Two chords that differ between the channels: what lossy codecs keep."""
    time = np.arange(num_frames)[:, None] / RATE
    tones = [np.sin(2 * np.pi * f * time + np.arange(num_channels)) for f in (220, 331, 554)]
    return (0.2 * sum(tones)).astype(np.float32)


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [
        ("a.wav", "FLOAT", 0.0),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
        ("a.ogg", "VORBIS", 0.1),
        ("a.mp3", "MPEG_LAYER_III", 0.1),
        ("a.m4a", ("alac", "s16p"), 2**-14),  # planar integers
        ("a.mov", ("pcm_s24le", "s32"), 2**-20),  # packed integers
        ("a.mka", ("pcm_f32le", "flt"), 0.0),
    ],
)
def test_formats_give_their_samples(tmp_path, num_channels, name, codec, tolerance):
    """Written by libsndfile, or by FFmpeg where a codec and its samples' format are named."""
    path, audio = tmp_path / name, music(num_channels=num_channels)
    if isinstance(codec, str):
        sf.write(path, audio, RATE, subtype=codec)
    else:
        encode(path, audio, codec[0], sample_format=codec[1])
    decoded, rate = read_audio(path)
    assert (rate, decoded.dtype, decoded.shape) == (RATE, np.float32, audio.shape)
    inner = slice(2000, -2000) if tolerance == 0.1 else slice(None)  # a lossy codec's edges
    assert np.abs(decoded - audio)[inner].max() <= tolerance


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.aac"])
def test_aac(tmp_path, name):
    audio = music()
    encode(tmp_path / name, audio, "aac")
    decoded, rate = read_audio(tmp_path / name)
    assert rate == RATE
    assert decoded.shape[1] == 2
    # The encoder's delay and padding are left as they are: two frames at most.
    assert 0 <= len(decoded) - len(audio) <= 2 * 1024
    correlation = np.corrcoef(decoded[3024:21_024].ravel(), audio[2000:20_000].ravel())[0, 1]
    assert correlation > 0.99


def test_mp3_without_index_is_read_to_its_end(tmp_path):
    """Quiet first, loud later: a length guessed from the first frames would be wrong."""
    audio = music(60_000)
    audio[30_000:] += np.random.default_rng(0).normal(0, 0.2, (30_000, 2)).astype(np.float32)
    encode(tmp_path / "a.mp3", audio, "libmp3lame", write_xing="0")
    decoded, _ = read_audio(tmp_path / "a.mp3")
    assert len(audio) <= len(decoded) < len(audio) + 3 * 1152
    assert np.std(decoded[50_000:60_000]) > 0.25


WRITTEN_BY_FFMPEG = {  # codec and its sample format; then the picture's codec
    "a.mka": ("aac", "fltp"),
    "picture.mkv": ("aac", "fltp", "mpeg4"),
    "picture.webm": ("libopus", "flt", "libvpx"),
    "picture.avi": ("libmp3lame", "fltp", "mpeg4"),
    "picture.flv": ("aac", "fltp", "flv1"),
    "fast.m4a": ("aac", "fltp"),
    "a.opus": ("libopus", "flt"),
    "id3.mp3": ("libmp3lame", "fltp"),
    "a.wv": ("wavpack", "s16p"),
    "mp3.wav": ("libmp3lame", "fltp"),
    "ffmpeg.wav": ("pcm_s16le", "s16"),
    "a.wma": ("libmp3lame", "fltp"),
}
WRITTEN_BY_SNDFILE = (
    "a.wav",
    "a.rf64",
    "a.w64",
    "a.aiff",
    "a.au",
    "a.caf",
    "a.flac",
    "a.ogg",
    "a.mp3",
    "a.voc",
    "a.avr",
)


def write_any(path, audio):
    if path.name not in WRITTEN_BY_FFMPEG:
        sf.write(path, audio, RATE)
        return
    codec, sample_format, *video = WRITTEN_BY_FFMPEG[path.name]
    rate = 48_000 if codec == "libopus" else RATE
    options = {"movflags": "+faststart"} if path.name == "fast.m4a" else {}
    picture = video[0] if video else None
    encode(path, audio, codec, sample_format=sample_format, rate=rate, video=picture, **options)


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("name", [*WRITTEN_BY_SNDFILE, *WRITTEN_BY_FFMPEG])
def test_truncated_files_are_refused_with_what_is_missing(tmp_path, name, share):
    path = tmp_path / name
    audio = np.tile(music(), (5, 1))
    audio += np.random.default_rng(0).normal(0, 0.01, audio.shape).astype(np.float32)
    write_any(path, audio)
    whole, rate = read_audio(path)
    assert len(whole) >= len(audio) - 1024
    seconds = len(whole) / rate
    with pytest.raises(UserError, match="truncated or damaged") as error:
        read_audio(truncate(path, share))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    if path.suffix in (".ogg", ".opus"):
        assert "the last page of its Ogg stream is missing" in message
    elif found := re.search(r"after ([\d.]+) s", message):  # no more is missing than a packet
        assert seconds - float(found[1]) < 0.5
    else:
        found = re.search(r"([\d.]+)( of [\d.]+)? s are missing", message)
        # Headers, pictures and packets share the bytes.
        assert float(found[1]) == pytest.approx((1 - share) * seconds, abs=0.55)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mka", "a.aiff"])
def test_what_can_be_read_of_a_damaged_file_is_read_where_allowed(tmp_path, name):
    path = tmp_path / name
    write_any(path, np.tile(music(), (5, 1)))
    whole = np.concatenate(list(AudioFile(path).blocks()))
    source = AudioFile(truncate(path, 0.7), allow_damaged=True)
    for _ in range(2):
        rest = np.concatenate(list(source.blocks()))
        assert 0.3 * len(whole) < len(rest) < 0.9 * len(whole)
        assert np.abs(rest[:40_000] - whole[:40_000]).max() < 1e-5  # two decoders of Vorbis
    assert all(note.startswith("truncated or damaged: ") for note in source.notes)
    assert len(source.notes) == len(set(source.notes)) > 0


@pytest.mark.parametrize("start", [1.0, 5.0])
@pytest.mark.parametrize("name", ["a.mka", "a.webm", "a.mp4"])
def test_a_clock_that_does_not_start_at_zero(tmp_path, name, start):
    """As in a piece of a longer recording."""
    path = tmp_path / name
    audio = np.tile(music(), (5, 1))
    codec = ("aac", "fltp") if name == "a.mp4" else ("libopus", "flt")
    rate = RATE if name == "a.mp4" else 48_000
    encode(path, audio, codec[0], sample_format=codec[1], rate=rate, start=start)
    decoded, _ = read_audio(path)
    assert 0 <= len(decoded) - len(audio) <= 2 * 1024


def test_a_piece_cut_out_of_a_flac_is_read(tmp_path):
    """Its header still states the length of the whole, and libsndfile cannot read it."""
    write_any(tmp_path / "a.flac", np.tile(music(), (5, 1)))
    with (
        av.open(str(tmp_path / "a.flac")) as source,
        av.open(str(tmp_path / "cut.flac"), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in list(source.demux(audio=0))[10:20]:
            packet.stream = stream
            target.mux(packet)
    whole, _ = read_audio(tmp_path / "a.flac")
    cut, _ = read_audio(tmp_path / "cut.flac")
    assert 0 < len(cut) < len(whole)
    start = 10 * len(cut) // 10
    assert np.array_equal(cut, whole[start : start + len(cut)])


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        *((name, b"", b"") for name in ("a.flac", "a.ogg", "a.mp3")),
        ("a.mp3", b"ID3\4\0\0\0\0\1\0" + bytes(128), b"TAG" + bytes(125)),
    ],
)
def test_joined_files_are_read_whole(tmp_path, name, before, after):
    """libsndfile would read the first and stop. An MP3's tags count for nothing but the length."""
    path = tmp_path / name
    audio = music()
    sf.write(path, audio, RATE)
    one = before + path.read_bytes() + after
    times, padding = (3, 2 * 4 * 1152) if name == "a.mp3" else (2, 1024)  # tag, delay, padding
    path.write_bytes(times * one)
    decoded, _ = read_audio(path)
    assert times * len(audio) <= len(decoded) <= times * len(audio) + padding
    if name == "a.mp3":
        path.write_bytes((times * one)[: -len(one) // 2])
        with pytest.raises(UserError, match=r"about 0\.\d+ s are missing at its end"):
            AudioFile(path)


def test_what_follows_the_stated_end_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, music(), RATE)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UserError, match=r"about 0\.\d+ s follow the end that its header states"):
        AudioFile(path)


@pytest.mark.parametrize(
    "rest", [b"JUNK\0\0\1\0", b"id3 \0\0\1\0", b"ID3\3", b"TAG\xc9", b"\0\0\0\0"]
)
def test_chunks_and_tags_after_the_stated_end_are_no_matter(tmp_path, rest):
    path = tmp_path / "a.wav"
    sf.write(path, music(), RATE, subtype="FLOAT")
    path.write_bytes(path.read_bytes() + rest + bytes(2**16))
    assert np.array_equal(read_audio(path)[0], music())


def patched(path, *patches):
    """The music with bytes changed: after a mark, and some more bytes, there are others."""
    sf.write(path, music(), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    for mark, more, content in patches:
        at = data.index(mark) + len(mark) + more
        data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def wav_sizes(*sizes):
    """Other sizes of the file and of the samples in the header of a wav."""
    marks = (b"RIFF", b"data")
    return [(mark, 0, size.to_bytes(4, "little")) for mark, size in zip(marks, sizes, strict=True)]


@pytest.mark.parametrize(
    ("name", "patches"),
    [
        *(
            ("a.wav", wav_sizes(*sizes))
            for sizes in ((0, 0), (36, 0), [2**31 - 1] * 2, [2**32 - 1] * 2)
        ),
        ("a.w64", [(b"riff", 12, b"\xff" * 8)]),
        ("a.flac", [(b"fLaC", 18, bytes(4))]),  # 32 of the 36 bits that count samples
    ],
)
def test_a_file_whose_header_states_no_size_is_read_to_its_end(tmp_path, name, patches):
    """A pipe cannot be rewound, and a recorder that lost power did not get to it."""
    assert read_audio(patched(tmp_path / name, *patches))[0].shape == music().shape


def test_a_wav_of_4_gib_whose_size_has_32_bits_is_refused(tmp_path):
    """Even where digital silence follows, which could be padding."""
    patched(tmp_path / "a.wav", *wav_sizes(120_080, 120_044))
    with (tmp_path / "a.wav").open("rb+") as file:
        file.seek(120_088 + 2**18)
        file.write(b"\xff" * 8)
        file.truncate(2**32 + 120_088)
    with pytest.raises(UserError, match=r"about 24347\.\d* s follow the end that its header"):
        AudioFile(tmp_path / "a.wav")


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@pytest.mark.parametrize(
    ("name", "patches"),
    [
        *(("a.wav", wav_sizes(riff, 40_000)) for riff in (0, 40_036, 120_080, 2**32 - 1)),
        ("a.caf", [(b"data", 0, (40_000).to_bytes(8, "big"))]),
        ("a.w64", [(W64_DATA, 0, (40_000).to_bytes(8, "little"))]),
        ("a.rf64", [(b"ds64", 12, (40_000).to_bytes(8, "little"))]),
    ],
)
def test_samples_after_the_end_of_the_data_are_not_lost(tmp_path, name, patches):
    """Whatever size of the file its header states: its writer may have been cut off."""
    path = patched(tmp_path / name, *patches)
    message = r"about 0\.4\d* s follow the end that its header states"
    with pytest.raises(UserError, match=message):
        (AudioFile if name == "a.wav" else read_audio)(path)  # before or when it is read
    if name == "a.wav":
        source = AudioFile(path, allow_damaged=True)
        assert np.concatenate(list(source.blocks())).shape == music().shape


def write_streams(path, *audio, default):
    """A Matroska file of several audio streams."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, each in enumerate(audio):
            layout = "mono" if each.shape[1] == 1 else "stereo"
            stream = container.add_stream("pcm_f32le", rate=RATE, layout=layout, format="flt")
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append((stream, layout))
        for (stream, layout), each in zip(streams, audio, strict=True):
            frame = av.AudioFrame.from_ndarray(each.reshape(1, -1), "flt", layout)
            frame.sample_rate = RATE
            container.mux([*stream.encode(frame), *stream.encode(None)])


def test_the_default_one_of_several_streams_is_taken(tmp_path):
    """A commentary may be the first."""
    commentary, film = music(num_channels=1), 2 * music()
    write_streams(tmp_path / "a.mka", commentary, film, default=1)
    source = AudioFile(tmp_path / "a.mka")
    assert source.notes == [
        "has audio streams 0 to 1; using 1, the default; --stream selects another"
    ]
    assert np.array_equal(np.concatenate(list(source.blocks())), film)
    chosen = AudioFile(tmp_path / "a.mka", stream=0)
    assert (chosen.num_channels, chosen.notes) == (1, [])
    for stream in (-1, 2):
        with pytest.raises(UserError, match=f"has no audio stream {stream}; expected 0 to 1"):
            AudioFile(tmp_path / "a.mka", stream)


def test_audio_that_starts_after_its_picture_is_reported(tmp_path):
    for start, notes in ((0.5, ["its audio starts 0.500 s after its picture"]), (0.0, [])):
        encode(
            tmp_path / "a.mkv",
            music(),
            "pcm_f32le",
            sample_format="flt",
            video="mpeg4",
            start=start,
        )
        source = AudioFile(tmp_path / "a.mkv")
        assert len(list(source.blocks())) == 1
        assert source.notes == notes


@pytest.mark.parametrize("num_bytes", [1, 5000])
def test_a_damaged_flac_is_refused(tmp_path, num_bytes):
    path = tmp_path / "a.flac"
    sf.write(path, music(300_000), RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + num_bytes] = bytes(~byte & 255 for byte in data[middle:][:num_bytes])
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"truncated or damaged: 0\.\d+ of 6\.803 s are missing"):
        read_audio(path)


def cut_m4a(path):
    """Its index is at the end: nothing can be read."""
    encode(path, music(), "aac")
    truncate(path, 0.9)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("text.mp3", b"these are words\n" * 99, "not an audio file"),
        ("text.raw", b"these are words\n" * 99, "no audio stream"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.aac\n", "not an audio file"),
        ("broken.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "not an audio file"),
        ("cut.m4a", cut_m4a, "not an audio file that can be read.* whole"),
        ("folder", Path.mkdir, "is a folder"),
        (
            "a.wav",
            lambda path: patched(path, (b"fmt ", 4, b"\x34\x12")),
            "FFmpeg has no decoder for its audio",
        ),
        (
            "wide.wav",
            lambda path: sf.write(path, np.zeros((100, 6)), RATE),
            "6 channels; expected mono or stereo.*-ac 2",
        ),
        (
            "slow.wav",
            lambda path: sf.write(path, np.zeros((100, 2)), 1),
            "sample rate is 1 Hz; expected 1000 to",
        ),
    ],
)
def test_what_is_not_audio_is_refused(tmp_path, name, make, message):
    path = tmp_path / name
    path.write_bytes(make) if isinstance(make, bytes) else make(path)
    with pytest.raises(UserError, match=message) as error:
        AudioFile(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_a_file_that_goes_while_it_is_read(tmp_path, name):
    """A drive that was unplugged is no damaged file, and no reason to stop the others."""
    path = tmp_path / name
    sf.write(path, music(), 44_100)
    source = AudioFile(path)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: cannot be read any more: No such file"):
        list(source.blocks())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_says_where(tmp_path, bad):
    audio = music(100_000)
    audio[70_000, 1] = bad
    sf.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"a\.wav: NaN or infinity at sample 70000 \(1\.587 s\)"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_blocks_are_bounded(tmp_path, name):
    sf.write(tmp_path / name, music(200_000), RATE)
    lengths = [len(block) for block in AudioFile(tmp_path / name).blocks()]
    assert lengths == [65_536] * 3 + [200_000 - 3 * 65_536]


def test_a_file_at_another_rate(tmp_path):
    audio = music(150_000)
    sf.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    source = AudioFile(tmp_path / "a.wav", sample_rate=48_000)
    assert isinstance(source, AudioSource)
    assert (source.sample_rate, source.num_channels) == (48_000, 2)
    for _ in range(2):  # it is read twice
        decoded = np.concatenate(list(finite_blocks(source)))
        assert np.array_equal(decoded, soxr.resample(audio, RATE, 48_000, quality="VHQ"))


def test_tags_in_another_encoding_are_no_matter(tmp_path):
    path = tmp_path / "a.mp3"
    encode(path, music(), "libmp3lame")
    expected, _ = read_audio(path)
    data = path.read_bytes()
    frame = b"\3" + "Déjà vu".encode("latin-1")  # it says that it is UTF-8
    frame = b"TIT2" + len(frame).to_bytes(4) + b"\0\0" + frame
    path.write_bytes(b"ID3\4\0\0" + len(frame).to_bytes(4) + frame + data[_id3_size(data) :])
    found, _ = read_audio(path)
    np.testing.assert_array_equal(found, expected)


def _id3_size(data):
    return 10 + int.from_bytes(data[8:10]) if data[:3] == b"ID3" else 0


@pytest.mark.parametrize("num_frames", [100, 4096, 20_000])
def test_alac_in_caf_is_read_to_its_end(tmp_path, num_frames):
    path = tmp_path / "a.caf"
    sf.write(path, 0.1 * np.sin(np.arange(num_frames)), RATE, subtype="ALAC_16")
    assert np.array_equal(read_audio(path)[0], sf.read(path, dtype="float32", always_2d=True)[0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError):
        read_audio(path)
