"""Watching a run: the watchdog, the profile of chosen steps, and what TensorBoard shows."""

import dataclasses
import errno
import io
import os
import pathlib
import re
import struct
import sys
import threading
import time

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
import soundfile
from runs import run

from diffsep_jax.errors import UserError
from diffsep_jax.training import tensorboard
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.profiling import StepProfiler, check_profile_steps
from diffsep_jax.training.tensorboard import TensorBoard, spectrograms
from diffsep_jax.training.watchdog import Watchdog, to_stderr


class Clock:
    """Minutes that pass when the test says so."""

    def __init__(self):
        self.minutes = 0.0

    def __call__(self):
        return 60.0 * self.minutes


@pytest.fixture
def watched():
    """(watchdog that looks only when asked, its clock, its lines), for a run of two processes."""
    clock, lines = Clock(), []
    return Watchdog(lines.append, 10.0, num_processes=2, clock=clock), clock, lines


def test_no_line_while_steps_finish(watched):
    watchdog, clock, lines = watched
    for step in range(1, 20):
        clock.minutes += 9.9
        watchdog.check()
        watchdog.step_done(step)
    assert not lines


def test_one_line_for_each_period_and_one_when_steps_finish_again(watched):
    watchdog, clock, lines = watched
    watchdog.step_done(119)
    for _ in range(25):
        clock.minutes += 1
        watchdog.check()
    assert [re.search(r"(\S+ minutes) since step 119", line).group(1) for line in lines] == [
        "10.0 minutes",
        "20.0 minutes",
    ]
    watchdog.step_done(120)
    watchdog.check()
    watchdog.check()
    assert lines[2:] == ["the run goes on: step 120 is finished, after about 25.0 minutes"]
    clock.minutes += 10
    watchdog.check()
    assert "since step 120" in lines[3]


@pytest.mark.parametrize(
    ("phase", "cause", "of_all_processes"),
    [
        ("waiting for data", "waiting for data for 11.0 minutes", False),
        ("waiting for the devices", "11.0 minutes, step 120 is running", True),
        ("saving", "saving for 11.0 minutes", True),
    ],
)
def test_the_line_says_the_cause(watched, phase, cause, of_all_processes):
    watchdog, clock, lines = watched
    clock.minutes = 3
    watchdog.step_done(119)
    with watchdog.phase("validating"):
        clock.minutes += 2
        with watchdog.phase(phase):
            clock.minutes += 11
            watchdog.check()
    (line,) = lines
    assert line.startswith("no step finished in the 13.0 minutes since step 119: ")
    assert cause in line
    assert ("another of which may have stopped" in line) == of_all_processes
    assert "\n" not in line


def test_compiling_is_no_fault_and_a_phase_ends_with_its_block(watched):
    watchdog, clock, lines = watched
    with watchdog.phase("compiling"):
        clock.minutes += 10
        watchdog.check()
    with pytest.raises(KeyError), watchdog.phase("saving"):
        raise KeyError
    clock.minutes += 10
    watchdog.check()
    assert "since the start: compiling for 10.0 minutes" in lines[0]
    assert "may take this long" in lines[0]
    assert "compiling" not in lines[1]
    assert "saving" not in lines[1]


def test_the_thread_names_the_line_that_the_watched_thread_is_at():
    told = threading.Event()
    lines = []

    def report(line):
        lines.append(line)
        told.set()

    with Watchdog(report, 0.05 / 60) as watchdog:
        with watchdog.phase("waiting for data"):
            assert told.wait(30)
        watchdog.step_done(1)
        told.clear()
        assert told.wait(30)  # that it goes on
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
    assert re.search(r"at threading:\d+;", lines[0])
    assert any("the run goes on" in line for line in lines)


def test_the_project_s_own_line_comes_first(watched, monkeypatch):
    watchdog, clock, lines = watched
    monkeypatch.setattr("diffsep_jax.training.watchdog.OURS", frozenset({__name__.split(".")[0]}))
    clock.minutes = 10
    line = sys._getframe().f_lineno + 1
    watchdog.check()
    assert f"at {__name__}:{line} in diffsep_jax.training.watchdog:" in lines[0]


def test_each_of_several_processes_tells_by_its_number(capsys, monkeypatch):
    to_stderr("a line")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    to_stderr("another")
    assert capsys.readouterr().err == "a line\nprocess 1: another\n"


@pytest.mark.parametrize("method", ["restore", "close"])
def test_a_run_that_hangs_at_its_checkpoints_is_told_of(tmp_path, monkeypatch, capsys, method):
    original = getattr(Checkpoints, method)

    def slow(self, *arguments):
        time.sleep(1)
        return original(self, *arguments)

    monkeypatch.setattr(Checkpoints, method, slow)
    config = dataclasses.replace(micro.TRAIN, num_steps=1, stall_minutes=0.3 / 60)
    run(tmp_path, config)
    phase = {"restore": "restoring", "close": "saving"}[method]
    assert re.search(rf"no step finished in .*: {phase} for [01] s", capsys.readouterr().err)


def test_zero_minutes_is_off_and_a_negative_number_is_refused():
    before = threading.active_count()
    with Watchdog(pytest.fail, 0.0) as watchdog:
        assert threading.active_count() == before
        with watchdog.phase("saving"):
            watchdog.step_done(1)
    for minutes in (-1.0, float("nan")):
        with pytest.raises(UserError, match="stall_minutes"):
            Watchdog(pytest.fail, minutes)


def take_steps(profiler, steps):
    double = jax.jit(lambda x: 2 * x)
    x = jnp.ones((4,))
    for step in steps:
        profiler.before_step(step)
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
    assert "steps 2 to 3" in lines[0]


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
    profiler.close()
    assert profiles(tmp_path)
    assert len(lines) == 1
    jax.profiler.start_trace(tmp_path / "next")  # which raises if one is going on
    jax.profiler.stop_trace()


@pytest.mark.parametrize("steps", [(0, 1), (-1, 2), (3, 2)])
def test_bad_profile_steps_are_refused(tmp_path, steps):
    with pytest.raises(UserError, match="profile_steps"):
        StepProfiler(tmp_path, steps, pytest.fail)
    check_profile_steps((1, 1))
    check_profile_steps(None)


SAMPLE_RATE = 8_000


def read_events(folder: pathlib.Path):
    """The events of all files, in the order that TensorBoard reads them."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
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
    pytest.importorskip("tensorboardX")
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
    pytest.importorskip("tensorboardX")
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
        assert image.encoded_image_string.startswith(b"\x89PNG")
        assert (image.width, image.height) == (512, 4 * 128 + 3 * 3)
    silent = values["segment_0/mixture"][6].audio
    samples, _ = soundfile.read(io.BytesIO(silent.encoded_audio_string))
    assert not samples.any()


def test_the_spectrogram_shows_a_tone_at_its_frequency_and_time():
    rate, time_ = 44_100, np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 1000 * time_) * (time_ > 0.5)
    audio = np.stack([tone, tone], axis=1).astype(np.float32)
    picture = spectrograms([audio, 0 * audio], rate)
    brightness = picture.astype(int).sum(axis=-1)
    upper, lower = (
        brightness[: tensorboard.BANDS],
        brightness[tensorboard.BANDS + tensorboard.GAP :],
    )
    row, column = np.unravel_index(upper.argmax(), upper.shape)
    octaves = np.log2(rate / 2 / tensorboard.LOWEST_HZ) / tensorboard.BANDS
    frequency = rate / 2 / 2 ** ((row + 0.5) * octaves)
    assert abs(np.log2(frequency / 1000)) < octaves
    assert column > tensorboard.COLUMNS / 2
    assert (lower == brightness.min()).all()
    quiet = upper[:, : tensorboard.COLUMNS // 2 - 15]
    assert (quiet == brightness.min()).all()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"tensorboardX.*diffsep-jax\[tensorboard\]"):
        TensorBoard(tmp_path, start_step=0)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        TensorBoard(tmp_path / "file", start_step=0)


def test_a_full_disk_is_an_error_and_does_not_hang(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path, start_step=0)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(board._records, "write", full)
        with pytest.raises(UserError, match=r"tfevents.*cannot be written: No space left"):
            board.scalars(1, "train", {"loss": 1.0})
    board.close()
    board.close()


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
    assert "the profile of steps 1 to 1 is lost (no space)" in lines[0]
