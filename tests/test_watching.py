"""Watching a run: hangs, utilisation, the profile of chosen steps, TensorBoard."""

import dataclasses
import errno
import faulthandler
import io
import os
import pathlib
import struct
import time

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
import soundfile
from runs import run
from tensorboardX.proto import event_pb2

from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.runtime import CHIPS, Chip, count_flops
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.log import TensorBoard
from diffsep_jax.training.loop import profile, restart_watchdog
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.step import example_seconds_at_peak


class HungError(Exception):
    """Ends a run that hung."""


def test_a_run_that_hangs_shows_where_on_stderr(toy, tmp_path, monkeypatch, capfd):
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
    for _ in range(5):
        restart_watchdog(0.6 / 60)
        time.sleep(0.2)
    faulthandler.cancel_dump_traceback_later()
    assert capfd.readouterr().err == ""


# Wide enough for the networks to cost more than the fixed transforms, which have no gradient.
WIDER = {"widths": (128, 192)}
SPECTRAL = dataclasses.replace(
    micro.SPECTRAL,
    conditioner=dataclasses.replace(micro.SPECTRAL.conditioner, **WIDER),
    generator=dataclasses.replace(micro.SPECTRAL.generator, **WIDER),
)


@pytest.mark.parametrize("model", [micro.MODEL, SPECTRAL], ids=micro.FAMILIES)
def test_model_flops_are_those_of_the_mathematics(monkeypatch, model):
    """About three forward passes, however it is computed; shared among the chips of the mesh."""
    one, two = (make_mesh(MeshConfig(), jax.devices()[:count]) for count in (1, 2))
    # A CPU's peak is not known.
    assert example_seconds_at_peak(model, micro.TRAIN, one, pytest.fail) is None
    chip = Chip(flops=1e6, memory=1e9)
    monkeypatch.setitem(CHIPS, jax.devices()[0].device_kind, chip)
    seconds = example_seconds_at_peak(model, micro.TRAIN, one, pytest.fail)

    audio = jax.ShapeDtypeStruct((1, model.segment, 2), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def forward(params, audio, sigma):
        return model.velocity(params, audio, sigma, audio, model.condition(params, audio))

    flops = count_flops(forward, params, audio, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert 2 < seconds * chip.flops / flops < 3.5

    compute = Compute(attention="blockwise", convolution="taps", remat="full")
    other = dataclasses.replace(model, compute=compute)
    config = dataclasses.replace(micro.TRAIN, micro_batches=2)
    assert example_seconds_at_peak(other, config, two, pytest.fail) == seconds / 2


def test_flops_that_cannot_be_counted_are_reported(monkeypatch):
    def no_cpu(**_):
        raise RuntimeError("Unknown backend cpu")

    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    chip = Chip(flops=1e6, memory=1e9)
    monkeypatch.setitem(CHIPS, jax.devices()[0].device_kind, chip)
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    lines = []
    assert example_seconds_at_peak(micro.MODEL, micro.TRAIN, mesh, lines.append) is None
    assert "expected it to include cpu" in lines[0]


def profiles(folder: pathlib.Path):
    return list(folder.rglob("*.xplane.pb"))


def test_the_chosen_steps_are_profiled(toy, tmp_path, capsys):
    run(tmp_path, dataclasses.replace(micro.TRAIN, num_steps=4, profile_steps=(2, 3)))
    (written,) = profiles(tmp_path / "profile")
    data = jax.profiler.ProfileData.from_file(str(written))
    events = [
        dict(event.stats)["step_num"]
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    assert sorted(events) == [2, 3]
    assert capsys.readouterr().out.count("wrote the profile") == 1
    run(tmp_path, dataclasses.replace(micro.TRAIN, profile_steps=(4, 6)))  # resumes after step 4
    assert profiles(tmp_path / "profile") == [written]


def test_a_run_that_breaks_off_leaves_the_profile_so_far(tmp_path):
    lines = []
    with pytest.raises(HungError), profile(tmp_path, lines.append):
        raise HungError
    assert profiles(tmp_path)
    assert len(lines) == 1
    jax.profiler.start_trace(tmp_path / "next")  # which raises if one is going on
    jax.profiler.stop_trace()


def test_a_profile_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    lines = []
    stop = jax.profiler.stop_trace

    def fails():
        stop()
        raise RuntimeError("no space")

    monkeypatch.setattr(jax.profiler, "stop_trace", fails)
    with profile(tmp_path, lines.append):
        pass
    assert len(lines) == 1
    assert "the profile cannot be written (no space)" in lines[0]


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
        board = TensorBoard(tmp_path / "events", start_step=start_step)
        for step in range(start_step + 1, last + 1):
            board.scalars(step, "train", {"loss": 100.0 * start_step + step, "rate": 0.5})
        board.file.close()
    assert len(list((tmp_path / "events").iterdir())) == 3
    values = shown(tmp_path / "events")
    assert values.keys() == {"train/loss", "train/rate"}
    losses = {step: value.simple_value for step, value in values["train/loss"].items()}
    assert losses == {1: 1, 2: 2, 3: 3, 4: 4, 5: 405, 6: 406, 7: 407, 8: 408, 9: 809}


def test_segments_are_heard_at_one_gain(tmp_path):
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((2, 1000, 2)).astype(np.float32)
    gains = {"mixture": 1.0, "vocals": 0.25, "direct": -1.0, "ddim": 9.0}
    board = TensorBoard(tmp_path, start_step=0)
    rows = {name: np.float32(gain) * mixture for name, gain in gains.items()}
    board.segments(5, rows, SAMPLE_RATE)
    board.segments(6, {"mixture": 0 * mixture[:1]}, SAMPLE_RATE)
    board.file.close()
    values = shown(tmp_path)
    assert len(values) == 2 * len(gains)
    for i in range(2):
        expected = mixture[i] * 0.5 / np.abs(mixture[i]).max()
        for name, gain in gains.items():
            audio = values[f"segment_{i}/{name}"][5].audio
            samples, rate = soundfile.read(io.BytesIO(audio.encoded_audio_string))
            assert (rate, audio.sample_rate, audio.num_channels) == (SAMPLE_RATE, SAMPLE_RATE, 2)
            np.testing.assert_allclose(samples, np.clip(gain * expected, -1, 1), atol=2 / 32768)
    silent = values["segment_0/mixture"][6].audio
    samples, _ = soundfile.read(io.BytesIO(silent.encoded_audio_string))
    assert not samples.any()


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file: "):
        TensorBoard(tmp_path / "file", start_step=0)


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    board = TensorBoard(tmp_path, start_step=0)
    monkeypatch.setattr(board.file, "write_event", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left"):
        board.scalars(1, "train", {"loss": 1.0})
    board.file.close()
