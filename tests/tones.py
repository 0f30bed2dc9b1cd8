"""Pure tones, and their pitch."""

import numpy as np

RATE = 44100


def tone(hz: float, samples: int = 65_536) -> np.ndarray:
    wave = np.sin(2 * np.pi * hz * np.arange(samples) / RATE)
    return np.stack([0.5 * wave, 0.25 * wave], axis=1).astype(np.float32)


def pitch(audio: np.ndarray) -> float:
    """Frequency in Hz of a tone's middle, from how far its phase goes from one half to the next."""
    middle = audio[8192:-8192, 0].astype(np.float64)
    half = len(middle) // 2
    window = np.hanning(half)
    first, second = (np.fft.rfft(window * part) for part in (middle[:half], middle[half:]))
    peak = int(np.argmax(np.abs(first)))
    turns = np.angle(second[peak] / first[peak]) / (2 * np.pi)
    whole = round(peak - turns)
    return (whole + turns) * RATE / half
