"""A picture of several pieces of audio: log spectrograms side by side on one colour scale."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.signal
from jaxtyping import Float32

from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    raise UserError(
        "pictures need the package matplotlib, which is not installed; "
        "pip install 'diffsep-jax[demo]'"
    ) from None

WINDOW, HOP = 4096, 512
LOWEST_HZ, HIGHEST_HZ = 80.0, 16_000.0
RANGE_DB = 70.0
DPI = 130


def save_spectrograms(
    path: Path, panels: Mapping[str, Float32[np.ndarray, "time channel"]], sample_rate: int
) -> None:
    """Writes a png with one panel for each title, in rows of two.

    All panels are in dB below the loudest bin of any, so that their colours compare. The frequency
    axis is logarithmic, as hearing is. Raises `UserError` if the file cannot be written.
    """
    powers = {title: _power(audio, sample_rate) for title, audio in panels.items()}
    loudest = max(float(power.max()) for power in powers.values()) or 1.0
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 0.7 + 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    axes, unused = np.split(grid.ravel(), [len(panels)])
    for axis in unused:
        axis.remove()
    for axis, (title, power) in zip(axes, powers.items(), strict=True):
        frequencies = np.arange(len(power)) * sample_rate / WINDOW / 1000
        times = np.arange(power.shape[1]) * HOP / sample_rate
        decibels = 10 * np.log10(power / loudest + 1e-12)
        image = axis.pcolormesh(
            times, frequencies, decibels, vmin=-RANGE_DB, vmax=0, cmap="magma", rasterized=True
        )
        axis.set_title(title, fontsize=10)
        axis.set_yscale("log")
        axis.set_ylim(LOWEST_HZ / 1000, min(HIGHEST_HZ, sample_rate / 2) / 1000)
        axis.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        axis.minorticks_off()
    figure.supxlabel("time, s", fontsize=10)
    figure.supylabel("frequency, kHz", fontsize=10)
    figure.colorbar(image, ax=axes.tolist(), label="dB below the loudest", pad=0.01, aspect=40)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _power(
    audio: Float32[np.ndarray, "time channel"], sample_rate: int
) -> Float32[np.ndarray, "frequency frame"]:
    """Mean of the channels' power spectrograms; frame i is centred on sample i x HOP."""
    window = scipy.signal.get_window("hann", WINDOW)
    transform = scipy.signal.ShortTimeFFT(window, HOP, sample_rate)
    num_frames = -(-len(audio) // HOP)
    audio = np.pad(audio, ((0, max(0, WINDOW - len(audio))), (0, 0)))  # scipy refuses less
    spectrum = transform.stft(audio, axis=0, p0=0, p1=num_frames)
    power = np.square(np.abs(spectrum)).mean(axis=1)
    return power.astype(np.float32)
