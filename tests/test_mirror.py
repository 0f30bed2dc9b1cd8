"""Work folders at URLs, on fsspec's file system in memory: copied, cut off, lost and resumed."""

import dataclasses
import itertools
import json
import shutil
import threading
import time
from pathlib import Path

import fsspec
import micro
import micro_config
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from runs import assert_equal, restored, run, saved_steps
from test_train_command import MICRO, run_here

import train
from diffsep_jax.errors import MachineError, UserError
from diffsep_jax.inference.pretrained import load_model
from diffsep_jax.training.checkpoint import CHECKPOINTS
from diffsep_jax.training.mirror import LIST, Mirror, local_folder, mirrored

URL = "memory://bucket/run"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def broken(monkeypatch, calls):
    """From now on the file system carries out so many calls that write; the next writes a half."""
    left = [calls]

    def limit(name):
        function = getattr(MemoryFileSystem, name)

        def limited(self, path, *others, **options):
            left[0] -= 1
            if left[0] >= 0:
                return function(self, path, *others, **options)
            if left[0] == -1 and name == "put_file":
                content = Path(path).read_bytes()
                self.pipe_file(others[0], content[: len(content) // 2])
            raise ConnectionResetError("reset by\npeer")

        monkeypatch.setattr(MemoryFileSystem, name, limited)

    for name in ("put_file", "cp_file", "rm_file"):
        limit(name)


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def fetched(folder):
    """What a machine that has nothing yet gets."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Mirror(URL, folder).fill()
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LIST]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode(errors="replace")
        for path in paths
    }


def at_url():
    return {path.removeprefix("/bucket/run/") for path in fsspec.filesystem("memory").find(URL)}


def wait(mirror):
    with mirror._copying:
        pass


def saved_at_url():
    """The checkpoints of the last complete copy."""
    filesystem = fsspec.filesystem("memory")
    names = (
        json.loads(filesystem.cat(f"{URL}/{LIST}")) if filesystem.exists(f"{URL}/{LIST}") else ()
    )
    return sorted({name.split("/")[1] for name in names if name.startswith(CHECKPOINTS)})


def test_a_copy_that_breaks_off_anywhere_leaves_the_one_before(tmp_path, monkeypatch):
    old = {"log.jsonl": "1\n", "checkpoints/1/a/b": "one", "checkpoints/2/a": "two"}
    new = {"log.jsonl": "1\n2\n", "checkpoints/2/a": "two", "checkpoints/3/a": "three"}
    new |= {"checkpoints/3/b/c": "more", "model/config.json": "{}", "run_config.json": "{}"}
    never = {"checkpoints/4.tmp/a": "half", "lock": "me", "model/.config.json.1.tmp": "half"}
    never["checkpoints/1.unreadable/a"] = "bad"
    for calls in itertools.count():
        MemoryFileSystem.store.clear()
        folder = tmp_path / f"run{calls}"
        write(folder, old | never)
        mirror = Mirror(URL, folder)
        mirror.copy()
        assert at_url() == old.keys() | {LIST}
        shutil.rmtree(folder / CHECKPOINTS / "1")
        write(folder, new)
        with monkeypatch.context() as patch:
            broken(patch, calls)
            try:
                mirror.copy()
                failed = False
            except MachineError:
                failed = True
        found = fetched(tmp_path / "other")
        assert {"checkpoints/2/a": "two"}.items() <= found.items()
        complete = found == new
        if not complete:  # a log may be newer, but is whole
            assert found.keys() == old.keys()
            assert found | {"log.jsonl": "1\n"} == old
            assert found["log.jsonl"] in (old["log.jsonl"], new["log.jsonl"])
        mirror.copy()  # the next checkpoint
        assert fetched(tmp_path / "other") == new
        if not failed:
            break
    assert complete
    assert at_url() == new.keys() | {LIST}
    assert calls > 10


def test_nothing_is_copied_twice(tmp_path, monkeypatch):
    write(tmp_path / "run", {"log.jsonl": "1\n", "checkpoints/1/a": "one"})
    Mirror(URL, tmp_path / "run").copy()
    fetched(tmp_path / "other")
    for folder in (tmp_path / "run", tmp_path / "other"):
        with monkeypatch.context() as patch:
            broken(patch, 0)
            mirror = Mirror(URL, folder)
            mirror.fill()
            mirror.copy()


def test_the_url_wins_where_another_machine_has_gone_on(tmp_path):
    first, second = Mirror(URL, tmp_path / "first"), Mirror(URL, tmp_path / "second")
    write(tmp_path / "first", {"checkpoints/1/a": "one", "lock": "me"})
    first.copy()
    (tmp_path / "second").mkdir()
    second.fill()
    write(tmp_path / "second", {"checkpoints/2/a": "two"})
    second.copy()
    write(tmp_path / "first", {"checkpoints/1/a": "one", "checkpoints/3/a": "three"})
    with pytest.raises(MachineError, match="another run has copied its work there since"):
        first.copy()
    assert "checkpoints/2/a" in at_url()
    again = Mirror(URL, tmp_path / "first")
    again.fill()
    assert saved_steps(tmp_path / "first") == [1, 2]
    assert (tmp_path / "first" / "lock").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda fs: fs.rm(URL, recursive=True),
            "no copied.json, but a run was copied there; delete",
        ),
        (lambda fs: fs.pipe(f"{URL}/{LIST}", b'{"log'), "JSONDecodeError"),
        (lambda fs: fs.pipe(f"{URL}/{LIST}", b'{"../a": [1, 1]}'), "'../a' is no name of a file"),
        (lambda fs: fs.pipe(f"{URL}/checkpoints/1/a", b"o"), "got 1 of 3 bytes of checkpoints/1/a"),
        (lambda fs: fs.rm(f"{URL}/checkpoints/1/a"), "FileNotFoundError: .*checkpoints/1/a"),
    ],
)
def test_a_run_that_cannot_be_resumed(tmp_path, damage, message):
    write(tmp_path / "run", {"checkpoints/1/a": "one"})
    Mirror(URL, tmp_path / "run").copy()
    damage(fsspec.filesystem("memory"))
    folder = tmp_path / ("run" if "no copied" in message else "another")
    folder.mkdir(exist_ok=True)
    for _ in range(2):
        with pytest.raises(UserError, match=f"^{URL}: cannot be resumed .*{message}") as caught:
            Mirror(URL, folder).fill()
        assert "\n" not in str(caught.value)


def test_training_waits_for_no_copy_and_copies_whole_checkpoints(toy, tmp_path, monkeypatch):
    """The first copy is stuck until training ends; Orbax removes that checkpoint meanwhile."""
    released, put_file = threading.Event(), MemoryFileSystem.put_file

    def stuck(self, path, *others, **options):
        assert released.wait(60)
        return put_file(self, path, *others, **options)

    config = dataclasses.replace(micro.TRAIN, keep_checkpoints=1)
    folder = tmp_path / "run"
    folder.mkdir()
    with mirrored(URL, folder) as mirror:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "put_file", stuck)
            run(folder, config, on_saved=mirror.start)
            assert 2 not in saved_steps(folder)
            assert not saved_at_url()
            released.set()
            wait(mirror)
        fetched(tmp_path / "during")
    assert saved_steps(tmp_path / "during") == [2]
    fetched(tmp_path / "end")
    assert saved_steps(tmp_path / "end") == saved_steps(folder) == [6]
    assert not (folder / ".copying").exists()


OPTIONS = ["--train.num-steps=5", "--train.checkpoint-every=2", "--train.keep-checkpoints=1"]


@pytest.mark.slow
def test_a_run_whose_machine_is_lost_goes_on_elsewhere_bitwise(toy, tmp_path, monkeypatch, capsys):
    alone = tmp_path / "alone"
    run_here(MICRO, "--workdir", alone, *OPTIONS)

    iterate = train.pipeline.iterate

    def until_the_machine_is_lost(training, step, config):
        for number, batch in enumerate(iterate(training, step, config), step + 1):
            if number == 5:
                deadline = time.monotonic() + 60
                while saved_at_url() != ["2"] and time.monotonic() < deadline:
                    time.sleep(0.02)
                broken(patch, 0)
                raise RuntimeError("lost")
            yield batch

    command = (MICRO, "--workdir", URL, *OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(train.pipeline, "iterate", until_the_machine_is_lost)
        with pytest.raises(RuntimeError, match="lost"):
            run_here(*command)
    folder = local_folder(URL)
    shutil.rmtree(folder)

    run_here(*command)
    printed = capsys.readouterr().out
    assert "resumed from the checkpoint of step 2" in printed
    assert printed.endswith(f"copied to {URL}\n")
    shutil.rmtree(folder)
    folder.mkdir()
    Mirror(URL, folder).fill()
    experiment = micro_config.get()
    states = (restored(each, 5, experiment.model, experiment.train) for each in (folder, alone))
    assert_equal(*states)
    assert saved_steps(folder) == saved_steps(alone)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 5]  # and the validation
    exported, expected = (load_model(name)[1] for name in (f"{URL}/model", str(alone / "model")))
    assert_equal(exported, expected)


def test_a_failure_in_the_middle_is_one_line_and_that_of_the_last_copy_the_status(
    toy, tmp_path, monkeypatch, capsys
):
    folder, saved = tmp_path / "run", []

    def on_saved():
        saved.append(len(saved) + 1)
        with monkeypatch.context() as patch:
            if len(saved) < 3:
                broken(patch, 1 if len(saved) == 1 else 10**9)
            mirror.copy_or_print()
        lists.append(json.loads(fsspec.filesystem("memory").cat(f"{URL}/{LIST}")))

    lists = []
    folder.mkdir()
    last = mirrored(URL, folder)
    mirror = last.__enter__()
    run(folder, on_saved=on_saved)
    write(folder, {"model/config.json": "{}"})
    broken(monkeypatch, 0)
    with pytest.raises(MachineError, match=rf"^{URL}: not copied .*; .* {folder} has everything"):
        last.__exit__(None, None, None)
    err = capsys.readouterr().err.splitlines()
    assert err == [
        f"{URL}: not copied (ConnectionResetError: reset by); the copy before is still there, and"
        f" {folder} has everything; the next checkpoint or run tries again"
    ]
    assert lists[0] == {}
    assert any(name.startswith("checkpoints/4/") for name in lists[1])
    monkeypatch.undo()
    with mirrored(URL, folder):  # the same command again
        pass
    assert "model/config.json" in at_url()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workdir", URL, "--export-only"], f"^--workdir is {URL}; expected a folder with --exp"),
        (["--workdir", URL, "--multihost"], f"^--workdir is {URL}; expected a folder with --multi"),
        (["--workdir", "nonsense://a"], "^nonsense://a: cannot be opened .*not known: nonsense"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        train.main(["tiny", *options])
    assert "\n" not in str(caught.value)


def test_a_url_that_cannot_be_written_ends_the_run_before_the_data_is_prepared(monkeypatch):
    monkeypatch.setattr(train, "train_run", pytest.fail)
    broken(monkeypatch, 0)
    with pytest.raises(MachineError, match=f"^{URL}: not copied"):
        train.main(["tiny", "--workdir", URL])
