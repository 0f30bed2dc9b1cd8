"""Checkpoints: which are kept, what is refused, unreadable files, full disks."""

import dataclasses
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from runs import assert_equal, records, run, saved_steps

from diffsep_jax.errors import UserError
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.loop import CHECKPOINTS, load_trained
from diffsep_jax.training.step import TrainState


def test_the_latest_and_the_best_by_validation_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, "loss")
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 5: 5.0, 6: 4.0}  # none at step 4
    for step in range(1, 7):
        weights = {"w": jnp.full((2, 3), step, jnp.float32)}
        state = TrainState(jnp.int32(step), weights, weights, {"mu": weights})
        metrics = {"loss": losses[step], "other": 0.0} if step in losses else None
        checkpoints.save(state, metrics)
    checkpoints.close()
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 5, 6]
    reader = Checkpoints(tmp_path, None, "loss")
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=weights["w"].sharding)
    assert np.all(reader.restore_ema({"w": shape}, best=True)["w"] == 2)
    assert np.all(reader.restore_ema({"w": shape})["w"] == 6)
    reader.close()


def test_the_number_that_tells_the_best_may_change(tmp_path):
    weights = {"w": jnp.zeros((2, 3), jnp.float32)}

    def save(best, step, metrics):
        checkpoints = Checkpoints(tmp_path, 1, best)
        checkpoints.save(TrainState(jnp.int32(step), weights, weights, {"mu": weights}), metrics)
        checkpoints.close()

    loss, sdr = "loss", "sdr"
    save(loss, 1, {"loss": 1.0, "sdr": 5.0})
    save(loss, 2, {"loss": 2.0, "sdr": float("nan")})  # as no number
    save(sdr, 3, {"loss": 3.0, "sdr": 6.0})
    save(sdr, 4, {"loss": 0.0})
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [3, 4]
    for best, step in ((loss, 4), (sdr, 3)):
        reader = Checkpoints(tmp_path, None, best)
        assert reader.best_step() == step
        reader.close()
    reader = Checkpoints(tmp_path, None, "other")
    with pytest.raises(UserError, match=r"a validation's other; they have loss, sdr$"):
        reader.best_step()
    reader.close()


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
def test_a_run_falls_back_from_an_unreadable_checkpoint(undisturbed, tmp_path, damage, capsys):
    workdir, expected = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
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


def test_a_checkpoint_that_is_out_of_reach_is_left_alone(undisturbed, tmp_path, monkeypatch):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    steps = saved_steps(copy)

    def load(self, step, abstract, partial=False):
        raise PermissionError(13, "Permission denied", "checkpoints/6")

    monkeypatch.setattr(Checkpoints, "_load", load)
    with pytest.raises(UserError, match=r"6: cannot be read now \(PermissionError.*run again"):
        run(copy)
    assert saved_steps(copy) == steps


def test_if_no_checkpoint_can_be_read_the_run_does_not_start_over(undisturbed, tmp_path):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    log = (copy / "log.jsonl").read_bytes()
    steps = saved_steps(copy)
    for step in steps:
        lose_a_file(copy / CHECKPOINTS / str(step))
    with pytest.raises(UserError, match=rf"{copy / CHECKPOINTS}: no checkpoint here can be read"):
        run(copy)
    assert (copy / "log.jsonl").read_bytes() == log
    assert saved_steps(copy) == steps


def test_a_validation_that_cannot_be_read_ends_in_one_line(undisturbed, tmp_path):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    (copy / CHECKPOINTS / "6" / "metrics" / "metrics").write_text('{"loss": 0.')
    with pytest.raises(UserError, match=r"6/metrics/metrics: cannot be read \(JSON.* delete that"):
        run(copy)


def test_an_unreadable_checkpoint_is_not_exported(undisturbed, tmp_path):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
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


def test_a_setting_that_changed_is_reported(undisturbed, tmp_path, capsys):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    config = json.loads((copy / "run_config.json").read_text())
    config["settings"] = {"train": {"log_every": 1, "num_steps": 5}}
    (copy / "run_config.json").write_text(json.dumps(config))
    run(copy, settings={"train": {"log_every": 2, "num_steps": 5}})
    printed = capsys.readouterr().out
    assert "changed since the run's last start: train.log_every was 1, now 2" in printed
    assert "num_steps" not in printed


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dataclasses.replace(micro.TRAIN, seed=1), r"train\.seed is 0 there and 1 in this config"),
    ],
)
def test_a_run_with_another_seed_is_refused(undisturbed, config, message):
    workdir, _ = undisturbed
    with pytest.raises(UserError, match=message):
        run(workdir, config)


@pytest.mark.parametrize("part", ["model", "fixed", "settings"])
def test_a_record_of_wrong_inner_types_is_refused(undisturbed, tmp_path, part):
    workdir, _ = undisturbed
    config = json.loads((workdir / "run_config.json").read_text())
    (tmp_path / "run_config.json").write_text(json.dumps({**config, part: [3]}))
    with pytest.raises(UserError, match=r"run_config.json: not a run's config"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"run_config.json: not a run's config"):
        load_trained(tmp_path)
    config["model"]["generator"]["widths"] = 3
    (tmp_path / "run_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as error:
        load_trained(tmp_path)
    assert "\n" not in str(error.value)


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
    with pytest.raises(UserError, match=rf"another: {network}\.{field} is .* and {value}"):
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


def test_exporting_does_not_disturb_a_save_that_goes_on(undisturbed, tmp_path):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    unfinished = copy / CHECKPOINTS / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    load_trained(copy)
    assert unfinished.is_dir()
