"""Output folders and files: found unwritable before the work, written whole or not at all."""

import errno
import os

import pytest

from diffsep_jax import output
from diffsep_jax.errors import UserError


def test_the_check_leaves_nothing(tmp_path):
    output.check_writable(tmp_path / "a" / "b")
    output.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(UserError, match=f"^{folder}: cannot be written: Not a directory"):
            output.check_writable(folder)

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be written: Permission denied"):
        output.check_writable(tmp_path)


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
        with pytest.raises(KeyboardInterrupt), output.new_folder(folder):
            fail(folder)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    folder = tmp_path / "kept" / "gone"
    with pytest.raises(KeyboardInterrupt), output.new_folder(folder):
        fail(folder, folder.parent / "result")
    assert list((tmp_path / "kept").iterdir()) == [tmp_path / "kept" / "result"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a"
    output.write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), output.replacing(path) as temporary:
        fail(file=temporary)
    assert path.read_bytes() == b"old"
    output.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written: Is a directory"):
        output.write_bytes(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def write_together(paths, data):
    with output.replacing_together(paths) as temporaries:
        for temporary in temporaries:
            temporary.write_bytes(data)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_files_that_belong_together_are_all_replaced_or_none(tmp_path, monkeypatch, error, links):
    """Whichever of the renames fails, or is interrupted when it is done."""
    old, new, last = (tmp_path / name for name in ("old", "new", "last"))
    write_together([old], b"earlier")
    rename = os.replace

    def fail_at_last(source, target):
        if error is KeyboardInterrupt or target != last:
            rename(source, target)
        if target == last:
            raise error(1, "Operation not permitted")

    def no_link(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.replace", fail_at_last)
    if not links:
        monkeypatch.setattr("os.link", no_link)
    with pytest.raises((UserError, KeyboardInterrupt)):
        write_together([old, new, last], b"later")
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_bytes() == (b"earlier" if links else b"later")
    monkeypatch.undo()
    write_together([old, new, last], b"later")
    assert sorted(tmp_path.iterdir()) == [last, new, old]
    assert {path.read_bytes() for path in (old, new, last)} == {b"later"}


def test_leftovers_of_the_same_files_go(tmp_path):
    ours = [".a.wav.99999999.tmp", ".a.wav.99999999.old.tmp"]  # no process has such a number
    others = [".a.wav.b.wav.99999999.tmp", ".b.wav.99999999.tmp", ".a.wav.tmp", "a.wav.9.tmp"]
    others.append(f".a.wav.{os.getppid()}.tmp")  # it lives, and may be at work
    for name in ours + others:
        (tmp_path / name).touch()
    with pytest.raises(KeyboardInterrupt), output.replacing_together([tmp_path / "a.wav"]):
        fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_file_that_somebody_removed_is_one_error(tmp_path):
    """Another run with the same results, on another machine, takes these files for leftovers."""
    paths = [tmp_path / "a", tmp_path / "b"]
    with (
        pytest.raises(UserError, match="b: cannot be written: No such file"),
        output.replacing_together(paths) as temporaries,
    ):
        temporaries[0].touch()
    with (
        pytest.raises(UserError, match="a: cannot be written: No such file"),
        output.replacing_together(paths) as temporaries,
    ):
        temporaries[1].touch()
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_replaced_are_found_before_the_work(tmp_path):
    (tmp_path / "folder").mkdir()
    for paths, message in (
        (["a", "folder"], "folder: cannot be written: Is a directory"),
        (["a", "gone/a"], "gone/a: cannot be written: No such file"),
        (["a", "a"], "a: would be written twice"),
    ):
        with pytest.raises(UserError, match=message):
            write_together([tmp_path / path for path in paths], b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "songs" / "a"
    (tmp_path / "songs" / ".a.tmp" / "left").mkdir(parents=True)  # of a killed process

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(output.os, "fsync", full)
        with pytest.raises(UserError) as error:
            output.write_folder(folder, {"x": b"1", "y": b"2"})
    assert str(error.value) == f"{folder}: cannot be written: No space left on device"
    assert not list((tmp_path / "songs").iterdir())
    output.write_folder(folder, {"x": b"1", "y": b"2"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"x": b"1", "y": b"2"}
    assert list((tmp_path / "songs").iterdir()) == [folder]
