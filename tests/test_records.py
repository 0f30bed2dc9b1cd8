"""Reading a built data set: its folders, formats, and what is damaged."""

import dataclasses
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from recordings import RATE, SMALL, built, songs, whole, write_musdb18hq_song

from data_pipelines import build
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError


@pytest.fixture(scope="module")
def one_song(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    write_musdb18hq_song(root / "hq/train/Song", num_samples=2 * RATE)
    return built("musdb18hq", root / "hq", root / "out")


def test_a_wrong_split_or_rate_is_refused(one_song):
    with pytest.raises(UserError, match=r"no split test; expected one of train"):
        songs(one_song, "test")
    with pytest.raises(UserError, match=r"sample rate is 44100 Hz; expected the model's, 48000 Hz"):
        songs(one_song, sample_rate=48_000)


def test_the_folder_of_a_build_its_layout_and_its_version_name_the_data_set(one_song, tmp_path):
    for path in (one_song, one_song.parent, one_song.parents[1]):
        assert open_source(str(path)).path == str(one_song)
    # By which a training finds that there are no validation songs.
    assert open_source(str(one_song), split="validation") == open_source(str(one_song))
    for layout in ("one", "two"):
        shutil.copytree(one_song, tmp_path / layout / "1.0.0")
    with pytest.raises(
        UserError, match=r"several data sets, one/1\.0\.0, two/1\.0\.0; expected one"
    ):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("*.array_record-*", None),
        ("*.array_record-*", lambda data: data[:-100_000]),
        ("songs-train.npz", lambda data: data[:-100]),
        ("dataset_info.json", lambda data: data.replace(b"1.0.0", b"0.9.0")),
        ("dataset_info.json", lambda data: b"{"),
    ],
)
def test_a_damaged_data_set_is_refused_in_one_line(one_song, tmp_path, file, change):
    folder = tmp_path / "musdb18hq" / "1.0.0"
    shutil.copytree(one_song, folder)
    path = next(folder.glob(file))
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    with pytest.raises(UserError, match=str(folder)) as caught:
        whole(songs(folder))
    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_told_on_reading(one_song, tmp_path):
    folder = tmp_path / "musdb18hq" / "1.0.0"
    shutil.copytree(one_song, folder)
    path = next(folder.glob("*.array_record-*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 1000] = b"x" * 1000
    path.write_bytes(data)
    source = songs(folder)
    with pytest.raises(UserError, match=rf"^{path}: record 1 of the split \(Song\) is damaged"):
        whole(source)


def test_a_data_set_of_another_format_is_not_taken_for_this_one(one_song):
    out = one_song.parents[1]
    command = build.Build(layout="musdb18hq", source=out.parent / "hq", out=out, **SMALL)
    for change, named in (
        ({"sample_rate": 22_050}, "sample_rate is 44100; expected 22050"),
        ({"dtype": "float32"}, "dtype is int16; expected float32"),
    ):
        with pytest.raises(UserError, match=f"^{one_song}: {named}"):
            build.main(dataclasses.replace(command, **change))


URL = "memory://bucket/data"


@pytest.fixture
def at_url(one_song, tmp_path, monkeypatch):
    """The folder of the build in fsspec's memory; copies go to an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    memory = fsspec.filesystem("memory")
    memory.put(str(one_song.parents[1]), URL, recursive=True)
    return memory


def test_records_at_a_url_are_copied_once_and_read_locally(one_song, at_url, monkeypatch, capsys):
    for url in (URL, f"{URL}/", f"{URL}/musdb18hq/1.0.0"):
        source = open_source(url)
        for stem, expected in zip(whole(source, 0), whole(songs(one_song), 0), strict=True):
            np.testing.assert_array_equal(stem, expected)
    assert capsys.readouterr().out.count("copying") == 3
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", pytest.fail)
        assert open_source(URL, split="validation").path == open_source(URL).path

    before = open_source(URL).path
    at_url.pipe(f"{URL}/musdb18hq/1.0.0/report.json", b"{}")  # built again
    assert open_source(URL).path != before


@pytest.mark.parametrize("failure", ["error", "end"])
def test_a_copy_of_records_that_breaks_off_is_not_read_and_goes_on(
    one_song, at_url, tmp_path, monkeypatch, failure
):
    get_file, files, fetched = MemoryFileSystem.get_file, list(one_song.iterdir()), []

    def broken(self, remote, local, **options):
        fetched.append(remote)
        get_file(self, remote, local, **options)
        if len(fetched) == 3:
            Path(local).write_bytes(Path(local).read_bytes()[:-1])
            if failure == "error":
                raise ConnectionResetError("reset by\npeer")

    monkeypatch.setattr(MemoryFileSystem, "get_file", broken)
    with pytest.raises(UserError, match=rf"^{URL}: cannot be copied to .*\((Conn|OSError: got)"):
        open_source(URL)
    assert not [path for path in tmp_path.rglob("records-*") if not path.suffix]
    assert len(open_source(URL)) == 1
    again = len(files) + 1
    assert len(fetched) == again


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/songs", "memory://bucket/songs: no data sets in it; expected one of"),
        ("memory://nothing", "memory://nothing: no data sets in it"),
        ("memory://bucket", "memory://bucket: 2 data sets in it"),
        ("nonsense://a", "nonsense://a: cannot be opened .*Protocol not known: nonsense"),
    ],
)
def test_what_is_no_data_set_at_a_url(at_url, url, message):
    at_url.pipe("memory://bucket/songs/a/vocals.wav", b"RIFF")
    at_url.pipe("memory://bucket/another/dataset_info.json", b"{}")
    at_url.pipe("memory://bucket/more/than/one/level/dataset_info.json", b"{}")
    at_url.mv(f"{URL}/musdb18hq/1.0.0/dataset_info.json", "memory://bucket/data/dataset_info.json")
    with pytest.raises(UserError, match=f"^{message}") as caught:
        open_source(url)
    assert "\n" not in str(caught.value)
