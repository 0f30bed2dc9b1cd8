"""Output folders and files: found unwritable before the work, written whole or not at all."""

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
