"""The picture of spectrograms: what is bright, what is dark, what cannot be drawn."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from scored import noise

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.picture import save_spectrograms

RATE = 44_100


def test_picture_shows_each_panel(tmp_path: Path) -> None:
    """Noise is bright and silence dark; an odd number of panels leaves no empty frame."""
    path = tmp_path / "a.png"
    silence = np.zeros((RATE, 2), np.float32)
    save_spectrograms(path, {"noise": noise(RATE, 2), "silence": silence, "again": silence}, RATE)
    image = matplotlib.image.imread(path)[..., :3].mean(axis=-1)
    height, width = image.shape
    assert width >= 1200
    left = image[height // 8 : height // 3, width // 8 : width // 3]
    right = image[height // 8 : height // 3, width * 6 // 10 : width * 8 // 10]
    assert left.mean() > 0.3
    assert right.max() < 0.05
    assert image[-height // 3 : -height // 8, width * 6 // 10 : width * 8 // 10].min() == 1
    assert list(tmp_path.iterdir()) == [path]


def test_picture_of_silence_at_a_low_rate(tmp_path: Path) -> None:
    save_spectrograms(tmp_path / "a.png", {"": np.zeros((100, 1), np.float32)}, 8000)


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"a\.png: cannot be written: Is a directory"):
        save_spectrograms(tmp_path / "a.png", {"a": noise(5000, 1)}, RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_picture_without_matplotlib() -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    import diffsep_jax.evaluation.picture"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "pip install 'diffsep-jax[demo]'" in result.stderr
