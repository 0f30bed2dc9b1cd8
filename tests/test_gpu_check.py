"""The checks of a GPU and the training after them, rehearsed on a CPU at small sizes."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from diffsep_jax.inference.pretrained import load_model

ROOT = Path(__file__).parents[1]
CHECKS = (
    *("convolutions", "attention_kernels", "generator_calls", "training_steps", "determinism"),
    *("against_cpu", "real_time_factors"),
)


@pytest.mark.slow
def test_the_checks_run_and_a_model_comes_back(tmp_path):
    draw = np.random.default_rng(0).standard_normal
    for split in ("train", "validation"):
        folder = tmp_path / "songs-0" / split / "song"
        folder.mkdir(parents=True)
        for stem in ("vocals", "accompaniment"):
            sf.write(folder / f"{stem}.ogg", 0.1 * draw((30_000, 2)), 44_100)
    # An empty wheel, with which the script does without PyAV.
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/empty-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "empty-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: empty\nVersion: 1\n"
        )
        wheel.writestr("empty-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr("empty-1.dist-info/RECORD", "")
    out, model = tmp_path / "out", tmp_path / "model"
    options = ["--train.num-steps", "2", "--data.pipeline.batch-size", "2"]
    subprocess.run(
        ["bash", ROOT / "launch/gpu_check.sh", tmp_path, out, "600", "tiny_spectral", *options],
        env=os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    found = json.loads((out / "checks.json").read_text())
    failed = [name for name in CHECKS if "error" in found[name]]
    assert not failed, found
    # There is no cuDNN here, and the checks go on.
    assert "error" in found["attention_kernels"]["cudnn, 64"]
    assert found["attention_kernels"]["rows, 64"] > 0
    assert found["determinism"] == {"equal_bits": True}
    assert found["against_cpu"]["fast, float32"] > 100
    assert "step 2 " in (out / "train.log").read_text()
    model.mkdir()
    parts = sorted(out.glob("model.safetensors.*"))
    (model / "model.safetensors").write_bytes(b"".join(part.read_bytes() for part in parts))
    (model / "config.json").write_bytes((out / "config.json").read_bytes())
    trained, _ = load_model(str(model))
    assert trained.segment > 0
