"""Sources: random access equals slicing, and bad folders end in one line that names the file."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import folders
from data_pipelines.builders.layouts import find
from data_pipelines.recordings import read_stems
from data_pipelines.source import block_rms
from data_pipelines.sources import EmbeddedSongs, FolderSongs, open_source, open_sources
from diffsep_jax.errors import MachineError, UserError

RATE = 8000


@pytest.fixture
def stems() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = ("vocals", "drums", "bass")
    return {name: (0.1 * rng.standard_normal((3000, 2))).astype(np.float32) for name in names}


def write(path: Path, audio: np.ndarray, rate: int = RATE, subtype: str | None = "FLOAT") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype)


def write_song(folder: Path, stems: dict[str, np.ndarray]) -> None:
    for name, audio in stems.items():
        write(folder / f"{name}.wav", audio)


def folder_songs(root: Path, rate: int = RATE) -> FolderSongs:
    return FolderSongs(path=str(root), sample_rate=rate, cache_dir=str(root.parent / "cache"))


def test_embedded_random_access_is_slicing(tmp_path):
    source = EmbeddedSongs(num_songs=2, seconds=0.5, cache_dir=str(tmp_path))
    total = source.num_samples(1)
    whole = source.segment(1, 0, total)
    assert total == 22050
    assert whole.vocals.dtype == whole.accompaniment.dtype == np.float32
    for start, length in ((0, 10), (5000, 4096), (total - 1, 1), (total, 0)):
        part = source.segment(1, start, length)
        np.testing.assert_array_equal(part.vocals, whole.vocals[start : start + length])
        np.testing.assert_array_equal(
            part.accompaniment, whole.accompaniment[start : start + length]
        )
    np.testing.assert_allclose(source.activity(1), block_rms(whole.vocals), rtol=1e-6)
    assert [source.name(song) for song in range(len(source))] == ["train-0000", "train-0001"]


def test_beyond_the_end_is_an_error(tmp_path, stems):
    write_song(tmp_path / "data" / "song", stems)
    embedded = EmbeddedSongs(num_songs=1, seconds=0.1, cache_dir=str(tmp_path / "cache"))
    for source in (embedded, folder_songs(tmp_path / "data")):
        total = source.num_samples(0)
        for start, length in ((-1, 2), (total - 1, 2), (0, total + 1)):
            with pytest.raises(ValueError, match=f"{total}"):
                source.segment(0, start, length)
        with pytest.raises(IndexError):
            source.segment(1, 0, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_songs": 0},
        *({"seconds": seconds} for seconds in (-1.0, math.nan, math.inf)),
        {"sample_rate": 0},
        {"seed": -1},
    ],
)
def test_bad_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        EmbeddedSongs(**{"num_songs": 1, **fields})


def test_folder_with_stems_sums_the_others(tmp_path, stems):
    write_song(tmp_path / "data" / "a song", stems)
    for passed_over in ("notes.txt", "a song/lyrics.txt", "empty/notes.txt", ".hidden/vocals.wav"):
        (tmp_path / "data" / passed_over).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / passed_over).touch()
    source = folder_songs(tmp_path / "data")
    segment = source.segment(0, 100, 500)
    np.testing.assert_array_equal(segment.vocals, stems["vocals"][100:600])
    np.testing.assert_array_equal(segment.accompaniment, (stems["bass"] + stems["drums"])[100:600])
    assert (len(source), source.name(0), source.num_samples(0)) == (1, "a song", 3000)
    np.testing.assert_array_equal(source.activity(0), block_rms(stems["vocals"]))


def test_other_rates_are_resampled_once(tmp_path):
    t = np.arange(4410) / 44100
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    for song, suffix in (("one", "wav"), ("two", "flac")):
        for name, gain in (("vocals", 0.5), ("other", 0.25)):
            subtype = "FLOAT" if suffix == "wav" else None
            write(tmp_path / "data" / song / f"{name}.{suffix}", gain * tone, 44100, subtype)
    source = folder_songs(tmp_path / "data", 16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)
    for song in range(2):
        assert source.num_samples(song) == 1600
        segment = source.segment(song, 0, 1600)
        middle = slice(200, 1400)
        np.testing.assert_allclose(segment.vocals[middle, 0], 0.5 * expected[middle], atol=2e-3)
        np.testing.assert_allclose(segment.accompaniment, segment.vocals / 2, atol=1e-4)
        part = source.segment(song, 300, 77)
        np.testing.assert_array_equal(part.vocals, segment.vocals[300:377])
    files = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(files) == 2
    again = folder_songs(tmp_path / "data", 16000).segment(0, 0, 1600)
    np.testing.assert_array_equal(again.vocals, source.segment(0, 0, 1600).vocals)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == files


def test_lossy_files_are_read(tmp_path):
    t = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    for suffix in ("mp3", "ogg"):
        for name in ("vocals", "Mixture"):
            write(tmp_path / "data" / suffix / f"{name}.{suffix.upper()}", tone, 44100, None)
    source = folder_songs(tmp_path / "data", 44100)
    assert len(source) == 2
    for song in range(2):
        segment = source.segment(song, 10000, 5000)
        assert segment.vocals.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
        assert np.abs(segment.accompaniment).max() < 1e-6


def refused(root: Path, *words: str) -> None:
    """Opening the folder and reading its first song raises one line with all the words."""

    def read() -> None:
        source = folder_songs(root)
        source.segment(0, 0, source.num_samples(0))

    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_bad_folders_are_refused(tmp_path, stems):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    (tmp_path / "bare" / "song").mkdir(parents=True)
    refused(tmp_path / "bare", "bare", "no songs")
    write_song(tmp_path / "no_vocals" / "song", {"drums": stems["drums"]})
    refused(tmp_path / "no_vocals", "song", "no file matches the patterns of vocals")
    write_song(tmp_path / "alone" / "song", {"vocals": stems["vocals"]})
    refused(tmp_path / "alone", "song", "only vocals")


def test_bad_files_are_refused(tmp_path, stems):
    longer = np.concatenate([stems["vocals"], stems["vocals"]])
    write_song(tmp_path / "longer" / "song", {"vocals": longer, "mixture": stems["drums"]})
    refused(tmp_path / "longer", "mixture.wav: 3000", "6000", "vocals.wav")
    write_song(tmp_path / "shorter" / "song", {**stems, "bass": longer})
    refused(tmp_path / "shorter", "bass.wav: 6000", "3000", "vocals.wav")
    write_song(tmp_path / "rates" / "song", {"vocals": stems["vocals"]})
    write(tmp_path / "rates" / "song" / "drums.wav", stems["drums"], 16000)
    refused(tmp_path / "rates", "drums.wav", "16000 Hz", "8000 Hz")
    write_song(tmp_path / "none" / "song", {**stems, "vocals": np.zeros((0, 2), np.float32)})
    refused(tmp_path / "none", "vocals.wav", "no samples")
    broken = stems["vocals"].copy()
    broken[1234, 1] = np.inf
    write_song(tmp_path / "infinite" / "song", {**stems, "vocals": broken})
    refused(tmp_path / "infinite", "vocals.wav", "1234")


MAPS = Path("/proc/self/maps")


@pytest.mark.skipif(not MAPS.exists(), reason="tells what is mapped on Linux alone")
@pytest.mark.parametrize("kind", ["embedded", "folder"])
def test_a_song_read_as_a_whole_does_not_stay_in_memory(tmp_path, stems, kind):
    """An evaluation reads each song once: their mapped files would add up."""
    cache = tmp_path / "cache"
    if kind == "embedded":
        source = EmbeddedSongs(num_songs=1, seconds=0.3, cache_dir=str(cache))
    else:
        write_song(tmp_path / "data" / "song", stems)
        source = folder_songs(tmp_path / "data", 2 * RATE)
    whole = source.segment(0, 0, source.num_samples(0))
    assert str(cache) not in MAPS.read_text()
    part = source.segment(0, 100, 100)  # as training reads, again and again
    assert str(cache) in MAPS.read_text()
    np.testing.assert_array_equal(part.vocals, whole.vocals[100:200])


def test_truncated_wavs_are_refused_on_opening(tmp_path, stems):
    """All of a song's files cut alike: their lengths agree, as libsndfile tells them."""
    write_song(tmp_path / "data" / "song", stems)
    for path in (tmp_path / "data" / "song").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"\.wav: truncated or damaged"):
        folder_songs(tmp_path / "data")


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_joined_files_are_not_shortened(tmp_path, suffix):
    for name in ("vocals", "drums"):
        path = tmp_path / "data" / "song" / f"{name}.{suffix}"
        write(path, np.zeros(44100), 44100, None)
        path.write_bytes(path.read_bytes() * 2)
    source = folder_songs(tmp_path / "data", 44100)
    with pytest.raises(UserError, match=r"song: 2\.\d+ s decode .* states 1\.00 s"):
        source.segment(0, 0, 100)


def test_a_format_that_only_records_take_is_refused(tmp_path, stems):
    write_song(tmp_path / "data" / "song", stems)
    (tmp_path / "data" / "song" / "guitar.m4a").touch()
    refused(tmp_path / "data", "guitar.m4a", "expected wav, flac", "data_pipelines.build stems")


@pytest.mark.parametrize("stop", [0, 9, -9])
def test_damaged_cache_files_are_made_again(tmp_path, stems, stop):
    def read():
        folders._converted.cache_clear()
        folders._activity.cache_clear()
        folders._level.cache_clear()
        source = folder_songs(tmp_path / "data", 2 * RATE)
        segment = source.segment(0, 0, source.num_samples(0))
        return *segment, source.activity(0), source.level(0)

    write_song(tmp_path / "data" / "song", stems)
    first = read()
    files = {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 3
    for path, data in files.items():
        path.unlink()  # it may be mapped
        path.write_bytes(data[:stop])
    for before, after in zip(first, read(), strict=True):
        np.testing.assert_array_equal(after, before)
    assert {path: path.read_bytes() for path in files} == files


def test_open_source(tmp_path, stems):
    embedded = open_source("embedded", split="test", num_songs=3, cache_dir=str(tmp_path))
    assert isinstance(embedded, EmbeddedSongs)
    assert (len(embedded), embedded.split) == (3, "test")
    write_song(tmp_path / "flat" / "song", stems)
    flat = open_source(str(tmp_path / "flat"), split="test", sample_rate=RATE)
    assert flat.name(0) == "song"
    write_song(tmp_path / "split" / "train" / "first", stems)
    write_song(tmp_path / "split" / "test" / "second", stems)
    for split, name in (("train", "first"), ("test", "second")):
        source = open_source(str(tmp_path / "split"), split=split, sample_rate=RATE)
        assert [source.name(i) for i in range(len(source))] == [name]
    specs = [str(tmp_path / name) for name in ("flat", "split")]
    both = open_sources(specs, (1.0, 3.0), split="test", sample_rate=RATE)
    assert [both.name(i) for i in range(2)] == [f"{specs[0]}/song", f"{specs[1]}/second"]
    assert both.weights == (1.0, 3.0)
    assert open_sources(specs[:1], (1.0,), sample_rate=RATE) == open_source(
        specs[0], sample_rate=RATE
    )


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_is_read_as_soundfile_reads_it(tmp_path, endian, subtype, channels):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, channels)).astype(np.float32)
    for stem in ("vocals", "drums"):
        (tmp_path / "songs/song").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "songs/song" / f"{stem}.wav"
        soundfile.write(path, audio, RATE, subtype=subtype, endian=endian)
    expected, _ = soundfile.read(path, 700, 4000, dtype="float32", always_2d=True)
    for stem in folder_songs(tmp_path / "songs").segment(0, 4000, 700):
        assert stem.dtype == np.float32
        np.testing.assert_array_equal(stem, np.broadcast_to(expected, (700, 2)))


def test_stems_mean_the_same_as_to_the_record_builder(tmp_path, stems):
    """A mixture by another name is no stem, and no stem is left out for its suffix or place."""
    vocals, others = stems["vocals"], {name: stems[name] for name in stems if name != "vocals"}
    mixture = vocals + sum(others.values())
    write_song(tmp_path / "data" / "mix", {"vocals": vocals, "mix": mixture})
    write_song(tmp_path / "data" / "more", {**stems, "mix": np.tanh(mixture)})
    write_song(tmp_path / "data" / "sum", {"lead_vocals": vocals / 2, "vox": vocals / 2})
    for name, audio in others.items():
        path = tmp_path / "data" / "sum" / "band" / f"{name}.aif"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, audio, RATE, "FLOAT", format="AIFF")
    source = folder_songs(tmp_path / "data")
    recordings = find("stems", tmp_path / "data").recordings
    assert [recording.name for recording in recordings] == ["mix", "more", "sum"]
    for song, recording in enumerate(recordings):
        segment, built = source.segment(song, 0, len(vocals)), read_stems(recording, RATE)
        for stem in ("vocals", "accompaniment"):
            np.testing.assert_allclose(getattr(segment, stem), getattr(built, stem), atol=1e-4)
    louder = source.segment(1, 0, len(vocals))
    np.testing.assert_allclose(louder.vocals + louder.accompaniment, np.tanh(mixture), atol=1e-6)


@pytest.mark.parametrize("name", ["validation", "valid", "Val", "dev"])
def test_splits_have_the_names_that_the_record_builder_knows(tmp_path, stems, name):
    for folder in ("train", name):
        write_song(tmp_path / folder / f"song of {folder}", stems)
    source = open_source(str(tmp_path), split="validation", sample_rate=RATE)
    assert source.name(0) == f"song of {name}"
    (tmp_path / "validation").mkdir(exist_ok=True)
    if name != "validation":
        with pytest.raises(UserError, match="expected one folder of validation songs"):
            open_source(str(tmp_path), split="validation", sample_rate=RATE)


def test_a_cache_that_cannot_be_written_is_no_bad_song(tmp_path, stems):
    write_song(tmp_path / "data" / "song", stems)
    (tmp_path / "cache").touch()
    with pytest.raises(MachineError, match="cache: the song cache cannot be written"):
        folder_songs(tmp_path / "data", 16_000).segment(0, 0, 10)
    blocked = tmp_path / "cache" / "below"
    with pytest.raises(MachineError, match=f"{blocked}: the song cache cannot be written"):
        EmbeddedSongs(num_songs=1, seconds=0.1, cache_dir=str(blocked)).activity(0)


def test_others_may_read_the_cache_as_far_as_the_umask_lets_them(tmp_path, stems):
    write_song(tmp_path / "data" / "song", stems)
    before = os.umask(0o027)
    try:
        folder_songs(tmp_path / "data", 16_000).segment(0, 0, 10)
    finally:
        os.umask(before)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o777 == 0o640
