"""Folders and files: found unwritable before the work, written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from data_pipelines.song_folders import write_folder
from diffsep_jax import files
from diffsep_jax.errors import UserError


def test_the_check_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "a" / "b")
    files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(UserError, match=f"^{folder}: cannot be written: Not a directory"):
            files.check_writable(folder)

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be written: Permission denied"):
        files.check_writable(tmp_path)


def fail(folder=None, file=None):
    """Work that writes a file and is interrupted."""
    if folder is not None:
        assert folder.is_dir()
    if file is not None:
        file.write_bytes(b"half")
    raise KeyboardInterrupt


def test_a_new_folder_goes_again_if_the_work_fails(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there" / "a" / "b", tmp_path / "there"):
        with pytest.raises(KeyboardInterrupt), files.new_folder(folder):
            fail(folder)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    folder = tmp_path / "kept" / "gone"
    with pytest.raises(KeyboardInterrupt), files.new_folder(folder):
        fail(folder, folder.parent / "result")
    assert list((tmp_path / "kept").iterdir()) == [tmp_path / "kept" / "result"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a"
    files.write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        fail(file=temporary)
    assert path.read_bytes() == b"old"
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UserError, match="folder: cannot be written: Is a directory"),
        files.replacing(tmp_path / "folder"),
    ):
        raise AssertionError("found when the work is done")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_url_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs:/bucket: is a URL; expected a local path"):
        files.make_folder(Path("gs://bucket"))
    assert not list(tmp_path.iterdir())


def test_leftovers_of_the_same_files_go(tmp_path):
    ours = [".a.wav.99999998.tmp", ".a.wav.99999999.tmp"]  # no process has such a number
    others = [".a.wav.b.wav.99999999.tmp", ".b.wav.99999999.tmp", ".a.wav.tmp", "a.wav.9.tmp"]
    others.append(f".a.wav.{os.getppid()}.tmp")  # it lives, and may be at work
    for name in ours + others:
        (tmp_path / name).touch()
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a.wav"):
        fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "songs" / "a"
    (tmp_path / "songs" / ".a.tmp" / "left").mkdir(parents=True)  # of a killed process

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError) as error:
            write_folder(folder, {"x": b"1", "y": b"2"})
    assert str(error.value) == f"{folder}: cannot be written: No space left on device"
    assert not list((tmp_path / "songs").iterdir())
    write_folder(folder, {"x": b"1", "y": b"2"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"x": b"1", "y": b"2"}
    assert list((tmp_path / "songs").iterdir()) == [folder]


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("é" * 125 + ".wav")
    files.write_bytes(path, b"1")
    assert len(list(tmp_path.iterdir())) == 1
    assert path.read_bytes() == b"1"
