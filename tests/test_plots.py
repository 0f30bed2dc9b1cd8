"""Pictures: what is bright, what is dark, what is named, what cannot be drawn."""

import io
import subprocess
import sys
import xml.etree.ElementTree

import matplotlib.image
import numpy as np
from scored import noise

from diffsep_jax import plots
from diffsep_jax.plots import Point

RATE = 44_100


def texts(svg):
    """What is written in an SVG."""
    root = xml.etree.ElementTree.fromstring(svg)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))


def test_a_picture_shows_each_panel():
    """Noise is bright and silence dark; an odd number of panels leaves no empty frame."""
    silence = np.zeros((RATE, 2), np.float32)
    panels = {"noise": noise(RATE, 2), "silence": silence, "again": silence}
    picture = pixels(plots.spectrograms(panels, RATE, columns=2))
    height, width = picture.shape[:2]
    assert width >= 1200
    image, opacity = picture[..., :3].mean(axis=-1), picture[..., 3]
    left = image[height // 8 : height // 3, width // 8 : width // 3]
    right = image[height // 8 : height // 3, width * 6 // 10 : width * 8 // 10]
    assert left.mean() > 0.3
    assert right.max() < 0.05
    assert opacity[-height // 3 : -height // 8, width * 6 // 10 : width * 8 // 10].max() == 0


def test_panels_are_below_each_other():
    panels = {"noise": noise(RATE, 2), "歌 $a_b$": np.zeros((RATE, 2), np.float32)}
    image = pixels(plots.spectrograms(panels, RATE))
    height, width = image.shape[:2]
    middle = slice(width // 3, width * 2 // 3)
    upper = image[height // 5 : height * 2 // 5, middle, :3]
    lower = image[height * 3 // 5 : height * 7 // 10, middle, :3]
    assert upper.mean() > 0.3 > 0.05 > lower.max()


def test_silence_at_a_low_rate_has_a_picture():
    plots.spectrograms({"": np.zeros((100, 1), np.float32)}, 8000)


def test_a_tone_is_at_its_frequency_and_time():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1000 * time) * (time > 0.5)
    power = plots.band_power(np.stack([tone, tone], axis=1).astype(np.float32), RATE)
    bands, frames = np.nonzero(power > 0.9 * power.max())
    num_bands, num_frames = power.shape
    octaves = np.log2(plots.HIGHEST_HZ / plots.LOWEST_HZ) / num_bands
    frequency = plots.LOWEST_HZ * 2 ** ((bands.mean() + 0.5) * octaves)
    assert abs(np.log2(frequency / 1000)) < octaves
    assert frames.min() > num_frames / 2
    assert not power[:, : num_frames // 2 - 25].any()


def test_without_matplotlib_there_is_one_line():
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    import diffsep_jax.plots"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "pip install matplotlib" in result.stderr


def test_lines_are_named_as_they_are():
    names = ["mixture", "歌 <b> $a_b$ & co", "a\udcff", "x" * 100]
    points = [Point(name, None, 0.1, 3.0) for name in names]
    found = texts(plots.quality_against_time(points))
    assert {"mixture", "歌 <b> $a_b$ & co", "a?", "x" * 47 + "…"} <= set(found)
    assert plots.quality_against_time(points) == plots.quality_against_time(points)


def test_points_of_equal_steps_are_labelled_at_the_best():
    points = [
        Point(f"eta={eta:g}", steps, steps / 10 + eta, steps / 10 + eta)
        for eta in (0.0, 0.4)
        for steps in (5, 10)
    ]
    found = texts(plots.quality_against_time([*points, Point("direct", None, 0.1, 3.0)]))
    assert [text for text in found if text.startswith("T=")] == ["T=10", "T=5"]
    assert {"eta=0", "eta=0.4", "direct"} <= set(found)
    assert "real-time factor" in found
    assert {"0.1", "0.2", "0.5", "1"} <= set(found)  # of the time, which is on a log axis
    assert not any("$" in text for text in found)
