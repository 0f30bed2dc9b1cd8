"""Checkpoints: which are kept, what is refused, unreadable files, full disks."""

import dataclasses
import gc
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import micro
import pytest
from orbax.checkpoint import v1 as ocp
from runs import assert_equal, records, run, saved_steps

from diffsep_jax.errors import UserError
from diffsep_jax.training import checkpoint
from diffsep_jax.training.checkpoint import CHECKPOINTS, Checkpoints, load_trained
from diffsep_jax.training.step import TrainState

# Orbax abandons reads when one of them fails, and Python reports them when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def copy(undisturbed, tmp_path):
    """The work folder of a run left alone, to be changed."""
    yield shutil.copytree(undisturbed[0], tmp_path / "run")
    gc.collect()


def save(checkpoints, step, metrics=None):
    """Saves a state of one array, which holds the step."""
    weights = {"w": jnp.full((2, 3), step, jnp.float32)}
    checkpoints.save(TrainState(jnp.int32(step), weights, weights, {"mu": weights}), metrics)


def step_of(directory, best_by, *, best):
    """The step of the newest or the best checkpoint."""
    reader = Checkpoints(directory, None, best_by)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=device)
    try:
        return int(reader.restore_ema({"w": shape}, best=best)["w"][0, 0])
    finally:
        reader.finish()


def test_the_latest_and_the_best_by_validation_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, "loss")
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 5: 5.0, 6: 4.0}  # none at step 4
    for step in range(1, 7):
        save(checkpoints, step, {"loss": losses[step], "other": 0.0} if step in losses else None)
    checkpoints.finish()
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 5, 6]
    assert step_of(tmp_path, "loss", best=True) == 2
    assert step_of(tmp_path, "loss", best=False) == 6


@pytest.mark.parametrize("name", ["lr[1e-4]", "a*", "a?b", "a\\b"])
def test_a_folder_whose_name_is_a_pattern_is_refused(tmp_path, name):
    """In some of them Orbax would lose the arrays without an error."""
    with pytest.raises(UserError, match="treats as a pattern; choose another --workdir"):
        Checkpoints(tmp_path / name, 2)


@pytest.mark.parametrize("name", ["{a}", "lr=1e-4]", "a b", "ä", "~x", "$x", "%d"])
def test_other_names_of_folders_are_only_names(tmp_path, name):
    checkpoints = Checkpoints(tmp_path / name, 2)
    save(checkpoints, 3)
    checkpoints.finish()
    assert step_of(tmp_path / name, "loss", best=False) == 3


def test_a_save_without_its_arrays_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_PATTERNS", frozenset())
    checkpoints = Checkpoints(tmp_path / "lr[1e-4]", 2)
    save(checkpoints, 3)
    with pytest.raises(UserError, match=r"cannot save step 3 .*without its arrays"):
        checkpoints.finish()


def test_a_save_that_a_restart_would_not_find_is_an_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, 2)
    save(checkpoints, 1)
    monkeypatch.setattr(ocp.training.Checkpointer, "checkpoints", property(lambda self: []))
    with pytest.raises(UserError, match=r"cannot save step 1 .*a listing of the folder lacks it"):
        checkpoints.finish()


def test_a_run_without_a_checkpoint_says_where_it_looked(copy, capsys):
    shutil.rmtree(copy / CHECKPOINTS)
    run(copy)
    assert f"no checkpoint in {copy / CHECKPOINTS}: starting at step 0" in capsys.readouterr().out


def test_the_number_that_decides_the_best_may_change(tmp_path):
    for best_by, step, metrics in (
        ("loss", 1, {"loss": 1.0, "sdr": 5.0}),
        ("loss", 2, {"loss": 2.0, "sdr": float("nan")}),  # the same as none
        ("sdr", 3, {"loss": 3.0, "sdr": 6.0}),
        ("sdr", 4, {"loss": 0.0}),
    ):
        checkpoints = Checkpoints(tmp_path, 1, best_by)
        save(checkpoints, step, metrics)
        checkpoints.finish()
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [3, 4]
    assert step_of(tmp_path, "loss", best=True) == 4
    assert step_of(tmp_path, "sdr", best=True) == 3
    with pytest.raises(UserError, match=r"no checkpoint here has a validation's other"):
        step_of(tmp_path, "other", best=True)


def truncate(step_folder):
    """Cuts the larger half of the state's files in the middle."""
    files = sorted(
        (p for p in (step_folder / "state").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    for path in files[len(files) // 2 :]:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def lose_a_file(step_folder):
    """The largest file is gone."""
    max((p for p in step_folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size).unlink()


@pytest.mark.parametrize("damage", [truncate, lose_a_file])
def test_a_run_falls_back_from_an_unreadable_checkpoint(undisturbed, copy, damage, capsys):
    _, expected = undisturbed
    damage(copy / CHECKPOINTS / "6")
    assert_equal(run(copy), expected)
    printed = capsys.readouterr().out
    assert "6: cannot be read" in printed
    assert "falling back to step 4" in printed
    assert "resumed from the checkpoint of step 4" in printed
    assert (copy / CHECKPOINTS / "6.unreadable").is_dir()
    assert saved_steps(copy)[-1] == 6
    damage(copy / CHECKPOINTS / "6")
    assert_equal(run(copy), expected)
    assert (copy / CHECKPOINTS / "6.unreadable1").is_dir()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("checkpoints/6/metrics/metrics", '{"loss": 0.', r"metrics.*not JSON.* delete that folder"),
        ("run_config.json", "{}", r"run_config\.json: not a run's config|run_config\.json: cannot"),
    ],
)
def test_a_damaged_file_of_a_run_ends_in_one_line(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(UserError, match=message):
        run(copy)


def test_if_no_checkpoint_can_be_read_the_run_does_not_start_over(copy):
    files = [copy / "log.jsonl", copy / "run_config.json"]
    before = [path.read_bytes() for path in files]
    steps = saved_steps(copy)
    for step in steps:
        lose_a_file(copy / CHECKPOINTS / str(step))
    with pytest.raises(UserError, match=rf"{copy / CHECKPOINTS}: no checkpoint here can be read"):
        run(copy, settings={"train": {"log_every": 2}})
    assert [path.read_bytes() for path in files] == before
    assert saved_steps(copy) == steps


def test_an_unreadable_checkpoint_is_not_exported(copy):
    truncate(copy / CHECKPOINTS / "6")
    with pytest.raises(
        UserError, match=r"checkpoints/6: cannot be read .*falls back to the .*before"
    ):
        load_trained(copy)


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many bytes, or gives it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size, *, again=False):
        options = f"{'remount,' if again else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            # Only root may, and no other disk can be filled without harm.
            pytest.skip("no right to mount a file system")
        return folder

    yield resize
    subprocess.run(["umount", folder], capture_output=True, check=False)


def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(undisturbed, small_disk):
    workdir, expected = undisturbed
    one = sum(p.stat().st_size for p in (workdir / CHECKPOINTS / "6").rglob("*") if p.is_file())
    folder = small_disk(int(1.9 * one))
    with pytest.raises(UserError, match=r"cannot save step 4 .*[Ss]pace.*step 2 is saved"):
        run(folder)
    assert saved_steps(folder) == [2]
    small_disk(20 * one, again=True)
    assert_equal(run(folder), expected)
    assert [r["step"] for r in records(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_setting_that_changed_is_reported(copy, capsys):
    config = json.loads((copy / "run_config.json").read_text())
    config["settings"] = {"train": {"log_every": 1, "num_steps": 5}}
    (copy / "run_config.json").write_text(json.dumps(config))
    run(copy, settings={"train": {"log_every": 2, "num_steps": 5}})
    printed = capsys.readouterr().out
    assert "changed since the run's last start: train.log_every was 1, now 2" in printed
    assert "num_steps" not in printed


def test_a_run_with_another_seed_is_refused(undisturbed):
    workdir, _ = undisturbed
    with pytest.raises(UserError, match=r"train\.seed is 0 there and 1 in this config"):
        run(workdir, dataclasses.replace(micro.TRAIN, seed=1))


@pytest.mark.parametrize(
    ("network", "field", "value"),
    [
        ("generator", "embedding_width", 24),
        ("conditioner", "transformer_layers", 0),  # fewer parameters, each of its old shape
        ("conditioner", "attention_heads", 1),  # no parameter differs
    ],
)
def test_a_run_of_another_network_is_refused(undisturbed, network, field, value):
    workdir, _ = undisturbed
    changed = dataclasses.replace(getattr(micro.MODEL, network), **{field: value})
    other = dataclasses.replace(micro.MODEL, **{network: changed})
    with pytest.raises(UserError, match=rf"differs: {network}\.{field} is .* and {value}"):
        run(workdir, model=other)


def test_a_checkpoint_of_another_network_is_refused(undisturbed, tmp_path):
    """Also if the folder's own record is lost."""
    workdir, _ = undisturbed
    shutil.copytree(workdir / CHECKPOINTS, tmp_path / CHECKPOINTS)
    generator = dataclasses.replace(micro.MODEL.generator, embedding_width=24)
    with pytest.raises(UserError, match=r"no checkpoint here can be read .*shape"):
        run(tmp_path, model=dataclasses.replace(micro.MODEL, generator=generator))


def test_exporting_before_training_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run to export; train first"):
        load_trained(tmp_path)


def test_exporting_does_not_disturb_a_save_that_goes_on(copy):
    unfinished = copy / CHECKPOINTS / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    load_trained(copy)
    assert unfinished.is_dir()
