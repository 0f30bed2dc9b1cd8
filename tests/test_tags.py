"""Tags and covers that stems inherit."""

from fractions import Fraction

import av
import numpy as np
import pytest
from halving import noise, run, song
from test_audio_write import files_up_to, writing

from diffsep_jax.audio.read import read_audio
from diffsep_jax.audio.tags import NO_TAGS, Cover, Tags, read_tags
from diffsep_jax.audio.write import FORMATS, OutputFormat
from diffsep_jax.errors import UserError

TEXTS = {
    "title": "Grün = 緑; a/b",
    "artist": "Ann & Bob",
    "album": "Nights",
    "album_artist": "Various",
    "composer": "Cecil",
    "genre": "Rock",
    "date": "2012",
    "track": "3/9",
    "disc": "1/2",
    "copyright": "CC BY 4.0",
    "comment": 'live, "late"',
}
IN_OGG = TEXTS.keys() - {"album_artist", "composer", "disc"}


def cover(codec="mjpeg"):
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.time_base = 32, 16, Fraction(1, 25)
    encoder.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec]
    picture = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 99, np.uint8))
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    return Cover(codec, 32, 16, b"".join(map(bytes, packets)))


def write(path, format_, tags, audio=None):
    audio = noise(30_011, 2) if audio is None else audio
    shape = {"num_frames": len(audio), "num_channels": audio.shape[1]}
    with writing({"a": path}, OutputFormat(format=format_), **shape, tags=tags) as writer:
        writer.write("a", audio)
    return path


def inherited(format_, tags):
    """What a format holds of them."""
    if format_ == "ogg":
        return Tags({name: text for name, text in tags.texts.items() if name in IN_OGG})
    return NO_TAGS if format_ == "wav" else tags


@pytest.mark.parametrize("codec", ["mjpeg", "png", None])
@pytest.mark.parametrize("format_", FORMATS)
def test_tags_come_back_and_change_no_sample(tmp_path, format_, codec):
    tags = Tags(TEXTS, cover(codec) if codec else None)
    tagged = write(tmp_path / f"tagged.{format_}", format_, tags)
    plain = write(tmp_path / f"plain.{format_}", format_, NO_TAGS)
    assert read_tags(plain) == NO_TAGS
    assert read_tags(tagged) == inherited(format_, tags)
    for num_frames in (1, 30_011):
        audio = noise(num_frames, 1)
        one, other = (
            read_audio(write(path, format_, each, audio))[0]
            for path, each in ((tagged, tags), (plain, NO_TAGS))
        )
        assert np.array_equal(one, other)


@pytest.mark.parametrize("format_", FORMATS)
def test_stems_inherit_the_tags_of_their_song(tmp_path, halving, format_):
    tags = Tags(TEXTS, cover())
    path = write(tmp_path / "a.mp3", "mp3", tags)
    run(path, "--out", tmp_path, "--format", format_)
    for stem in ("vocals", "accompaniment"):
        result = tmp_path / "a" / f"{stem}.{format_}"
        assert read_tags(result) == inherited(format_, tags)
        run(result, "--out", tmp_path / "again", "--format", "flac", "--stems", "vocals")
        again = tmp_path / "again" / stem / "vocals.flac"
        assert read_tags(again) == inherited(format_, tags)


def test_tags_of_the_recording_are_not_a_stems(tmp_path):
    with av.open(tmp_path / "a.mka", "w") as container:
        stream = container.add_stream("flac", rate=48_000, layout="mono")
        stream.metadata["title"] = "Track of the film"
        container.metadata.update({"ARTIST": "Ann", "REPLAYGAIN_TRACK_GAIN": "-7 dB"})
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_tags(tmp_path / "a.mka") == Tags({"artist": "Ann"})


def test_what_has_no_tags_has_none(tmp_path):
    for name in ("gone.mp3", "text.mp3"):
        assert read_tags(tmp_path / name) == NO_TAGS
        (tmp_path / "text.mp3").write_text("no audio")
    assert read_tags(song(tmp_path / "a.wav")) == NO_TAGS


@pytest.mark.parametrize("format_", sorted(set(FORMATS) - {"wav", "ogg"}))
def test_large_covers(tmp_path, format_):
    small = cover()
    large = small._replace(data=small.data + bytes(10_000_000 - len(small.data)))
    assert read_tags(write(tmp_path / "a", format_, Tags(cover=large))) == Tags(cover=large)
    if format_ != "flac":
        too_large = Tags(TEXTS, large._replace(data=large.data + b"0"))
        assert read_tags(write(tmp_path / "a", format_, too_large)) == Tags(TEXTS)


@pytest.mark.parametrize("format_", ["mp3", "m4a"])
def test_a_damaged_cover_is_left_out(tmp_path, format_):
    """It has no width, without which FFmpeg writes no cover."""
    tags = Tags(TEXTS, cover()._replace(data=b"no picture " * 20))
    assert read_tags(write(tmp_path / "a", format_, tags)) == Tags(TEXTS)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_is_full_at_the_tags_is_one_line(tmp_path, format_):
    tags = Tags(TEXTS, cover()._replace(data=bytes(100_000)))
    with (
        files_up_to(95_000 if format_ != "ogg" else 5_000),
        pytest.raises(UserError, match=r"a: cannot be written: .*(full|too large)"),
    ):
        write(tmp_path / "a", format_, tags)
    assert not list(tmp_path.iterdir())
