"""Watching a run: hangs, utilisation, the profile of chosen steps, TensorBoard."""

import dataclasses
import errno
import faulthandler
import io
import os
import pathlib
import struct
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib.image
import micro
import numpy as np
import pytest
import soundfile
from runs import run
from tensorboardX.proto import event_pb2

from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.runtime import CHIPS, Chip, count_flops
from diffsep_jax.training import tensorboard
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.loop import restart_watchdog
from diffsep_jax.training.profiling import StepProfiler
from diffsep_jax.training.program import example_seconds_at_peak
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.tensorboard import TensorBoard


class HungError(Exception):
    """Ends a run that hung."""


def test_a_run_that_hangs_shows_where_on_stderr(tmp_path, monkeypatch, capfd):
    def hangs(*_):
        time.sleep(1)
        raise HungError

    monkeypatch.setattr(Checkpoints, "restore", hangs)
    with pytest.raises(HungError):
        run(tmp_path, dataclasses.replace(micro.TRAIN, stall_minutes=0.4 / 60))
    shown = capfd.readouterr().err
    assert "Timeout (0:00:00.4" in shown
    assert "in hangs" in shown
    time.sleep(0.6)
    assert capfd.readouterr().err == ""  # the watch ends with the run


def test_nothing_is_shown_while_steps_finish_in_time(capfd):
    restart_watchdog(0.0)  # off
    for _ in range(5):
        restart_watchdog(0.6 / 60)
        time.sleep(0.2)
    faulthandler.cancel_dump_traceback_later()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("model", micro.FAMILIES.values(), ids=micro.FAMILIES)
def test_model_flops_are_those_of_the_mathematics(monkeypatch, model):
    """About three forward passes, however it is computed; shared among the chips of the mesh."""
    one, two = (make_mesh(MeshConfig(), jax.devices()[:count]) for count in (1, 2))
    assert example_seconds_at_peak(model, micro.TRAIN, one) is None  # a CPU's peak is not known
    chip = Chip(flops=1e6, memory=1e9)
    monkeypatch.setitem(CHIPS, jax.devices()[0].device_kind, chip)
    seconds = example_seconds_at_peak(model, micro.TRAIN, one)

    audio = jax.ShapeDtypeStruct((1, model.segment, 2), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def forward(params, audio, sigma):
        return model.velocity(params, audio, sigma, audio, model.condition(params, audio))

    flops = count_flops(forward, params, audio, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert 2 < seconds * chip.flops / flops < 3.5

    compute = Compute(attention="blockwise", convolution="taps", remat="full")
    other = dataclasses.replace(model, compute=compute)
    config = dataclasses.replace(micro.TRAIN, micro_batches=2)
    assert example_seconds_at_peak(other, config, two) == seconds / 2


def take_steps(profiler, steps):
    double = jax.jit(lambda x: 2 * x)
    x = jnp.ones((4,))
    for step in steps:
        profiler.before_step(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            x = double(x)
        profiler.after_step(step, x)


def profiles(folder: pathlib.Path):
    return list(folder.rglob("*.xplane.pb"))


def test_the_chosen_steps_are_profiled(tmp_path):
    lines = []
    with StepProfiler(tmp_path / "profile", (2, 3), lines.append) as profiler:
        take_steps(profiler, [1, 2])
        assert not profiles(tmp_path)
        take_steps(profiler, [3, 4, 5])
    (profile,) = profiles(tmp_path)
    data = jax.profiler.ProfileData.from_file(str(profile))
    events = [
        dict(event.stats)["step_num"]
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    assert sorted(events) == [2, 3]
    assert len(lines) == 1


@pytest.mark.parametrize("steps", [None, (2, 3)])
def test_no_profile_unless_the_first_step_is_taken(tmp_path, steps):
    with StepProfiler(tmp_path / "profile", steps, pytest.fail) as profiler:
        take_steps(profiler, [3, 4])
    assert not list(tmp_path.iterdir())


def test_a_run_that_breaks_off_leaves_the_profile_so_far(tmp_path):
    lines = []
    profiler = StepProfiler(tmp_path, (1, 9), lines.append)

    def broken_run():
        with profiler:
            take_steps(profiler, [1])
            profiler.before_step(2)
            raise KeyError

    with pytest.raises(KeyError):
        broken_run()
    assert profiles(tmp_path)
    assert len(lines) == 1
    jax.profiler.start_trace(tmp_path / "next")  # which raises if one is going on
    jax.profiler.stop_trace()


SAMPLE_RATE = 8_000


def read_events(folder: pathlib.Path):
    """The events of all files, in the order that TensorBoard reads them."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(folder):
    """{tag: {step: value}} as TensorBoard shows it: a restart hides its step and later ones."""
    values: dict = {}
    for event in read_events(folder):
        if event.HasField("session_log"):
            for steps in values.values():
                for step in [step for step in steps if step >= event.step]:
                    del steps[step]
        for value in event.summary.value:
            assert event.step not in values.setdefault(value.tag, {})
            values[value.tag][event.step] = value
    return values


def test_scalars_show_each_step_once_over_restarts(tmp_path):
    for start_step, last in [(0, 6), (4, 8), (8, 9)]:
        with TensorBoard(tmp_path / "events", start_step=start_step) as board:
            for step in range(start_step + 1, last + 1):
                board.scalars(step, "train", {"loss": 100.0 * start_step + step, "rate": 0.5})
    assert len(list((tmp_path / "events").iterdir())) == 3
    values = shown(tmp_path / "events")
    assert values.keys() == {"train/loss", "train/rate"}
    losses = {step: value.simple_value for step, value in values["train/loss"].items()}
    assert losses == {1: 1, 2: 2, 3: 3, 4: 4, 5: 405, 6: 406, 7: 407, 8: 408, 9: 809}


def test_segments_are_heard_at_one_gain_and_seen(tmp_path):
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((6, 1000, 2)).astype(np.float32)
    rows = {"mixture": mixture, "vocals": 0.25 * mixture, "direct": -mixture, "ddim": 9 * mixture}
    with TensorBoard(tmp_path, start_step=0) as board:
        board.segments(5, rows, SAMPLE_RATE)
        board.segments(6, {"mixture": 0 * mixture[:1]}, SAMPLE_RATE)
    values = shown(tmp_path)
    heard = {}
    for tag, steps in values.items():
        if 5 in steps and steps[5].HasField("audio"):
            record = steps[5].audio
            samples, rate = soundfile.read(io.BytesIO(record.encoded_audio_string))
            assert (rate, samples.shape) == (SAMPLE_RATE, (1000, 2))
            assert (record.sample_rate, record.num_channels, record.length_frames) == (
                8000,
                2,
                1000,
            )
            heard[tag] = samples
    assert len(heard) == 4 * tensorboard.NUM_SEGMENTS
    for i in range(tensorboard.NUM_SEGMENTS):
        expected = mixture[i] * 0.5 / np.abs(mixture[i]).max()
        for name, gain in {"mixture": 1, "vocals": 0.25, "direct": -1, "ddim": 9}.items():
            wanted = np.clip(gain * expected, -1, 1)
            np.testing.assert_allclose(heard[f"segment_{i}/{name}"], wanted, atol=2 / 32768)
    images = [
        steps[5].image for steps in values.values() if 5 in steps and steps[5].HasField("image")
    ]
    assert len(images) == tensorboard.NUM_SEGMENTS
    for image in images:
        picture = matplotlib.image.imread(io.BytesIO(image.encoded_image_string))
        assert picture.shape == (image.height, image.width, 4)
        assert picture[..., :3].std() > 0
    silent = values["segment_0/mixture"][6].audio
    samples, _ = soundfile.read(io.BytesIO(silent.encoded_audio_string))
    assert not samples.any()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"tensorboardX.*diffsep-jax\[tensorboard\]"):
        TensorBoard(tmp_path, start_step=0)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        TensorBoard(tmp_path / "file", start_step=0)


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with TensorBoard(tmp_path, start_step=0) as board, monkeypatch.context() as patch:
        patch.setattr(board._events, "write_event", full)
        with pytest.raises(UserError, match=r"cannot be written: No space left"):
            board.scalars(1, "train", {"loss": 1.0})


def test_a_profile_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    lines = []
    stop = jax.profiler.stop_trace

    def fails():
        stop()
        raise RuntimeError("no space")

    monkeypatch.setattr(jax.profiler, "stop_trace", fails)
    with StepProfiler(tmp_path, (1, 1), lines.append) as profiler:
        take_steps(profiler, [1, 2])
    assert len(lines) == 1
    assert "the profile cannot be written (no space)" in lines[0]
