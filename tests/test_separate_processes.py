"""Real processes on a catalogue: killed in the middle and resumed, interrupted."""

import json
import signal
import subprocess
import sys
import time

import micro
import numpy as np
import pytest
import soundfile as sf

from diffsep_jax.audio.read import read_audio
from diffsep_jax.inference.pretrained import save_model

RATE = 44_100
NAMES = ("a", "b", "c", "d", "e")
STEMS = ("vocals", "accompaniment")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A folder with a model, and with songs in `songs`."""
    folder = tmp_path_factory.mktemp("catalogue")
    params = micro.random_params(micro.MODEL)
    save_model(folder / "model", micro.MODEL, params)
    (folder / "songs").mkdir()
    for seed, name in enumerate(NAMES):
        audio = 0.1 * np.random.default_rng(seed).standard_normal((RATE, 2))
        sf.write(folder / "songs" / f"{name}.wav", audio, RATE, subtype="PCM_16")
    return folder


def command(catalogue, out, *options):
    # A process of its own has one device.
    arguments = [catalogue / "songs", "--out", out, "--model", catalogue / "model", *options]
    return [sys.executable, "-m", "diffsep_jax.cli", "separate", *map(str, arguments)]


def files(out):
    """The samples of each file, None of half-written ones. A float wav has the time of day, too."""
    return {
        path.relative_to(out): None if path.name[0] == "." else read_audio(path)[0].tobytes()
        for path in out.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(catalogue):
    """What a run leaves that is left alone."""
    out = catalogue / "undisturbed"
    subprocess.run(command(catalogue, out, "--steps", 3), check=True)
    result = files(out)
    assert len(result) == len(NAMES) * len(STEMS)
    return result


def test_a_killed_run_leaves_whole_files_and_is_resumed(catalogue, undisturbed):
    out = catalogue / "killed"
    process = subprocess.Popen(
        command(catalogue, out, "--steps", 3, "--progress", "json"),
        stdout=subprocess.PIPE,
        text=True,
    )
    done = 0
    for line in process.stdout:
        event = json.loads(line)
        done += event["event"] == "done"
        if done == 2 and event["event"] == "progress":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = files(out)
    named = {path: data for path, data in left.items() if not path.name.startswith(".")}
    assert 4 <= len(named) < len(undisturbed)
    assert all(undisturbed[path] == data for path, data in named.items())
    assert len(left) > len(named), "nothing was being written when the process was killed"
    subprocess.run(command(catalogue, out, "--steps", 3, "--resume"), check=True)
    assert files(out) == undisturbed


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_is_prompt_and_clean(catalogue, presses):
    """In the middle of a long batch, pressed once or twice."""
    out = catalogue / f"interrupted{presses}"
    process = subprocess.Popen(
        command(catalogue, out, "--steps", 20_000, "--progress", "json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert json.loads(process.stdout.readline())["event"] == "begin"
    while not list(out.rglob(".*.tmp")):
        time.sleep(0.05)
    start = time.monotonic()
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 5
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert not out.exists()
