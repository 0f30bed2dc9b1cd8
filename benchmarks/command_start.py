"""Seconds that `diffsep separate` takes on a second of audio, from nothing compiled and again."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile

from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import model_dir

SAMPLE_RATE = 44_100


def start_seconds(model: str) -> dict[str, float]:
    """The command's whole life, with an empty compilation cache and with the one it left behind.

    Raises UserError if `model` is no model that the command knows, or if the command fails.
    """
    model_dir(model)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        noise = 0.1 * np.random.default_rng(0).standard_normal((SAMPLE_RATE, 2))
        soundfile.write(root / "noise.wav", noise, SAMPLE_RATE)
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / "cache")}
        command = [sys.executable, "-m", "diffsep_jax.cli", "separate", str(root / "noise.wav")]
        command += ["--out", str(root / "out"), "--model", model, "--steps", "1"]
        seconds = {}
        for name in ("cold start of the command, seconds", "warm start of the command, seconds"):
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            seconds[name] = time.perf_counter() - start
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:]
                raise UserError(f"diffsep separate failed: {' '.join(reason)}")
        return seconds
