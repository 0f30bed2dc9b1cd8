"""Holds what the commands compute while the code is reorganised; `tests/guard` was written before.

    python tests/test_guard.py      rewrites the reference results

A change that means to alter a sound, a score or a loss says so and rewrites them. Models and
commands are as a user has them: model directories of configs `tiny` and `tiny_spectral` (120 steps
of training), the command line, and files.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jaxtyping import Float

from diffsep_jax import cli, metrics

GUARD = Path(__file__).parent / "guard"
EXCERPT = GUARD / "excerpt.flac"
"""1.5 s of an embedded song: two channels of vocals, then two of accompaniment."""
REFERENCE = GUARD / "reference.npz"
MODELS = ("tiny", "tiny_spectral")
SETTINGS = {
    "direct": ("--preset", "fast", "--overlap", "0.25"),
    "ddim": ("--sampler", "ddim", "--steps", "4", "--seed", "3", "--overlap", "0.25"),
    "ab2": ("--sampler", "ab2", "--steps", "3", "--crossover-hz", "800", "--overlap", "0.3"),
}
EVERY = 7
"""Of the samples so many are stored."""

CASES = [(model, setting) for model in MODELS for setting in SETTINGS]


def excerpt() -> tuple[Float[np.ndarray, "time 2"], Float[np.ndarray, "time 2"]]:
    """Vocals and mixture."""
    stems, _ = soundfile.read(EXCERPT, dtype="float32")
    return stems[:, :2], stems[:, :2] + stems[:, 2:]


def separate(folder: Path, model: str, setting: str) -> Float[np.ndarray, "time 2"]:
    """The vocals by `diffsep separate`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "song.wav"
    soundfile.write(source, excerpt()[1], 44_100, subtype="FLOAT")
    arguments = ["separate", str(source), "--out", str(folder / "out"), "--progress", "quiet"]
    cli.main([*arguments, "--model", str(GUARD / model), *SETTINGS[setting]])
    return soundfile.read(folder / "out" / "song" / "vocals.wav", dtype="float32")[0]


def scores(estimate: np.ndarray) -> list[float]:
    """Utterance SDR, SI-SDR and MR-STFT distance."""
    vocals = excerpt()[0]
    return [measure(vocals, estimate) for measure in (metrics.sdr, metrics.si_sdr, metrics.mr_stft)]


@pytest.mark.parametrize(("model", "setting"), CASES)
def test_a_model_directory_separates_as_before(tmp_path, model, setting):
    vocals = separate(tmp_path, model, setting)
    stored = np.load(REFERENCE)
    np.testing.assert_allclose(
        vocals[::EVERY], stored[f"{model}_{setting}"], rtol=0, atol=1e-4, strict=True
    )
    np.testing.assert_allclose(
        scores(vocals), stored[f"{model}_{setting}_scores"], rtol=0, atol=0.01
    )


def losses(folder: Path) -> list[float]:
    """Those in the log of 20 steps of `train.py tiny`, with the least of a validation."""
    arguments = ["tiny", "--workdir", folder / "run", "--data.cache-dir", folder / "cache"]
    options = ["--train.num-steps=20", "--train.log-every=10", "--train.validate-every=1000"]
    options += ["--train.validation-batches=1", "--train.validation-sampler-steps=1"]
    program = Path(__file__).parents[1] / "train.py"
    subprocess.run([sys.executable, program, *arguments, *options], check=True, capture_output=True)
    lines = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_training_learns_as_before(tmp_path):
    np.testing.assert_allclose(losses(tmp_path), np.load(REFERENCE)["losses"], rtol=1e-4)


def write_reference(folder: Path) -> None:
    """What the tests compare with, by today's code."""
    results = {}
    for model, setting in CASES:
        vocals = separate(folder / model / setting, model, setting)
        results[f"{model}_{setting}"] = vocals[::EVERY]
        results[f"{model}_{setting}_scores"] = np.array(scores(vocals))
    results["losses"] = np.array(losses(folder))
    np.savez_compressed(REFERENCE, **results)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        write_reference(Path(name))
