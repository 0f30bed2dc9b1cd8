"""Runs of several real processes over loopback, killed, asked to stop, restarted as fewer."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import micro
import numpy as np
import pytest
from processes import places
from runs import assert_equal, restored, run

from diffsep_jax.errors import EXIT_PREEMPTED
from diffsep_jax.training.checkpoint import CHECKPOINTS

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder for compiled programs, as each of these processes compiles the same ones."""
    return tmp_path_factory.mktemp("compiled")


def start(compiled, workdir, *options, processes=2, devices=4):
    """Starts the processes of one run; returns them."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "PYTHONPATH": str(TESTS.parent),
    }
    command = [sys.executable, TESTS / "worker.py", workdir, *options]
    command += ["--multihost"] if processes > 1 else []
    started = []
    for i, place in enumerate(places(processes) if processes > 1 else [{}]):
        with (workdir.parent / f"{workdir.name}.{i}.log").open("a") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                env=environment | place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
    return started


def finish(started):
    """Exit codes, once all have ended; none is left running."""
    try:
        return [process.wait(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()


def wait_for(path, process):
    """Until `path` is there."""
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the process ended before"
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def logs(workdir):
    return "".join(p.read_text() for p in sorted(workdir.parent.glob(f"{workdir.name}.*.log")))


def assert_close(a, b, tolerance):
    a, b = (
        np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
        for tree in (a, b)
    )
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.fixture(scope="module")
def toy_left_alone(compiled, tmp_path_factory):
    """The work folder of a run of toy networks by two processes, left alone."""
    workdir = tmp_path_factory.mktemp("processes") / "left_alone"
    assert finish(start(compiled, workdir, "--toy")) == [0, 0], logs(workdir)
    return workdir


@pytest.mark.slow
def test_two_processes_one_killed_both_restarted_equal_a_run_left_alone(
    compiled, toy, toy_left_alone, tmp_path
):
    workdir = tmp_path / "killed"
    started = start(compiled, workdir, "--toy", "--seconds-per-step", 0.5)
    wait_for(workdir / CHECKPOINTS / "2", started[0])
    started[1].send_signal(signal.SIGKILL)
    first, second = finish(started)
    assert second == -signal.SIGKILL
    assert first != 0  # the other ends too, rather than wait for ever
    assert finish(start(compiled, workdir, "--toy")) == [0, 0], logs(workdir)
    assert "resumed from the checkpoint of step" in logs(workdir)
    assert_equal(restored(workdir, 6), restored(toy_left_alone, 6))


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step_and_one_process_goes_on(compiled, tmp_path):
    workdir = tmp_path / "preempted"
    sixty = ["--seconds-per-step", 0.3, "--config", "{'num_steps': 60}"]
    started = start(compiled, workdir, "--toy", *sixty)
    wait_for(workdir / CHECKPOINTS / "2", started[0])
    started[1].send_signal(signal.SIGTERM)
    assert finish(started) == [EXIT_PREEMPTED, EXIT_PREEMPTED], logs(workdir)
    assert logs(workdir).count("preempted: saved step") == 2
    saved = max(int(p.name) for p in (workdir / CHECKPOINTS).iterdir() if p.name.isdigit())
    assert 2 < saved < 60
    longer = ["--toy", "--config", f"{{'num_steps': {saved + 2}}}"]
    assert finish(start(compiled, workdir, *longer, processes=1)) == [0], logs(workdir)
    assert f"resumed from the checkpoint of step {saved}" in logs(workdir)
    steps = [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, saved + 3))


@pytest.mark.slow
def test_two_processes_fall_back_from_an_unreadable_checkpoint_together(
    compiled, toy, toy_left_alone, tmp_path
):
    workdir = tmp_path / "unreadable"
    shutil.copytree(toy_left_alone, workdir)
    for path in (workdir / CHECKPOINTS / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:500])
    assert finish(start(compiled, workdir, "--toy")) == [0, 0], logs(workdir)
    assert logs(workdir).count("6: cannot be read") == 1
    assert_equal(restored(workdir, 6), restored(toy_left_alone, 6))


@pytest.mark.slow
def test_two_processes_log_once_and_compute_what_one_does(toy, toy_left_alone, tmp_path):
    lines = (toy_left_alone / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    (validation,) = [r for r in records if r["kind"] == "validation"]
    assert np.isfinite(validation["utterance_sdr_ddim"])
    assert "step 6 train" not in (toy_left_alone.parent / "left_alone.1.log").read_text()
    alone = run(tmp_path, micro.train_config())
    assert_close(restored(toy_left_alone, 6).params, alone.params, 1e-6)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one_with_other_devices(compiled, tmp_path, capsys):
    """With fsdp over all eight devices until halfway, then one process with two devices: 1e-6."""
    workdir = tmp_path / "moved"
    halfway = ["--seconds-per-step", 1.0, "--config", "{'checkpoint_every': 3}"]
    started = start(compiled, workdir, "--fsdp", 8, *halfway)
    wait_for(workdir / CHECKPOINTS / "3", started[0])
    for process in started:
        process.kill()
    finish(started)
    moved = run(workdir, micro.train_config())
    assert "resumed from the checkpoint of step 3" in capsys.readouterr().out
    assert_close(moved.params, run(tmp_path / "left_alone", micro.train_config()).params, 1e-6)
