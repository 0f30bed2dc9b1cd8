"""The sounds of a sung language: vowel formants, consonants, and random syllables."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

Formants = tuple[float, float, float]
"""The first three resonances of the vocal tract in hertz."""

VOWELS: dict[str, Formants] = {
    "i": (290.0, 2250.0, 2950.0),
    "I": (400.0, 1950.0, 2550.0),
    "e": (470.0, 1920.0, 2560.0),
    "E": (560.0, 1780.0, 2500.0),
    "ae": (690.0, 1680.0, 2450.0),
    "a": (740.0, 1180.0, 2500.0),
    "O": (590.0, 880.0, 2450.0),
    "o": (450.0, 820.0, 2400.0),
    "U": (430.0, 1050.0, 2250.0),
    "u": (320.0, 850.0, 2250.0),
    "V": (620.0, 1220.0, 2400.0),
    "er": (480.0, 1350.0, 1700.0),
    "@": (500.0, 1450.0, 2450.0),
}
"""First three formants in hertz of an adult male tract; other tracts scale them."""

_VOWEL_NAMES = tuple(VOWELS)
_VOWEL_WEIGHTS = np.array([10, 7, 9, 8, 6, 12, 7, 8, 5, 9, 8, 4, 7], np.float64)
_DIPHTHONGS = (("a", "I"), ("e", "I"), ("o", "U"), ("a", "U"), ("O", "I"), ("I", "@"), ("i", "u"))


class Consonant(NamedTuple):
    """How a consonant is made.

    `seconds` is its length before the vowel; `voicing` the level of the voice in it (0..1);
    `locus` its formant targets in hertz; `noise` its bands as (start, length, low Hz, high Hz,
    level), start and length as shares of `seconds`; `breath` the aspiration before the vowel.
    """

    seconds: float
    voicing: float
    locus: Formants
    noise: tuple[tuple[float, float, float, float, float], ...] = ()
    breath: float = 0.0
    nasal: bool = False


CONSONANTS = {
    "p": Consonant(0.09, 0.0, (350.0, 900.0, 2200.0), ((0.75, 0.12, 400.0, 1800.0, 0.5),), 0.5),
    "t": Consonant(0.09, 0.0, (350.0, 1750.0, 2600.0), ((0.6, 0.25, 3000.0, 8000.0, 0.8),), 0.6),
    "k": Consonant(0.10, 0.0, (350.0, 2100.0, 2300.0), ((0.6, 0.25, 1400.0, 3200.0, 0.7),), 0.6),
    "b": Consonant(0.07, 0.22, (250.0, 900.0, 2200.0), ((0.88, 0.1, 300.0, 1500.0, 0.3),)),
    "d": Consonant(0.06, 0.22, (250.0, 1750.0, 2600.0), ((0.85, 0.14, 2500.0, 6500.0, 0.4),)),
    "g": Consonant(0.07, 0.2, (250.0, 2100.0, 2300.0), ((0.85, 0.14, 1300.0, 2800.0, 0.4),)),
    "s": Consonant(0.12, 0.0, (350.0, 1700.0, 2600.0), ((0.0, 1.0, 4800.0, 10500.0, 0.75),)),
    "sh": Consonant(0.12, 0.0, (350.0, 1900.0, 2500.0), ((0.0, 1.0, 2200.0, 6500.0, 0.75),)),
    "f": Consonant(0.10, 0.0, (350.0, 1000.0, 2200.0), ((0.0, 1.0, 1200.0, 9000.0, 0.28),)),
    "th": Consonant(0.09, 0.0, (350.0, 1500.0, 2500.0), ((0.0, 1.0, 2500.0, 9000.0, 0.25),)),
    "ch": Consonant(0.13, 0.0, (300.0, 1850.0, 2500.0), ((0.35, 0.6, 2300.0, 7000.0, 0.8),)),
    "z": Consonant(0.09, 0.4, (300.0, 1700.0, 2600.0), ((0.0, 1.0, 4800.0, 10000.0, 0.35),)),
    "v": Consonant(0.07, 0.45, (300.0, 1000.0, 2200.0), ((0.0, 1.0, 1200.0, 8000.0, 0.15),)),
    "j": Consonant(0.09, 0.3, (280.0, 1850.0, 2500.0), ((0.4, 0.6, 2300.0, 6500.0, 0.45),)),
    "h": Consonant(0.08, 0.0, (500.0, 1450.0, 2450.0), (), 1.0),
    "m": Consonant(0.09, 0.5, (260.0, 1000.0, 2200.0), (), 0.0, True),
    "n": Consonant(0.08, 0.5, (260.0, 1500.0, 2500.0), (), 0.0, True),
    "ng": Consonant(0.08, 0.45, (260.0, 1900.0, 2300.0), (), 0.0, True),
    "l": Consonant(0.08, 0.65, (340.0, 1100.0, 2700.0)),
    "r": Consonant(0.08, 0.65, (380.0, 1150.0, 1550.0)),
    "w": Consonant(0.09, 0.6, (290.0, 640.0, 2200.0)),
    "y": Consonant(0.08, 0.6, (270.0, 2200.0, 2950.0)),
}
_ONSETS = (*CONSONANTS, "")
_ONSET_WEIGHTS = np.array(
    [4, 7, 6, 6, 7, 4, 8, 3, 4, 4, 2, 2, 3, 2, 6, 7, 7, 1, 8, 6, 6, 5, 14], np.float64
)
_CODAS = ("s", "t", "n", "m", "l", "r", "d", "k", "z", "ng", "")
_CODA_WEIGHTS = np.array([4, 5, 6, 4, 4, 3, 3, 2, 3, 3, 40], np.float64)


class Syllable(NamedTuple):
    """Onset and coda consonants ("" for none) around one or two vowels."""

    onset: str
    vowels: tuple[str, ...]
    coda: str


def random_syllable(rng: Generator) -> Syllable:
    """Draws a syllable with frequencies roughly those of sung English."""
    if rng.random() < 0.28:
        vowels: tuple[str, ...] = _DIPHTHONGS[int(rng.integers(len(_DIPHTHONGS)))]
    else:
        vowels = (str(rng.choice(_VOWEL_NAMES, p=_VOWEL_WEIGHTS / _VOWEL_WEIGHTS.sum())),)
    onset = str(rng.choice(_ONSETS, p=_ONSET_WEIGHTS / _ONSET_WEIGHTS.sum()))
    coda = str(rng.choice(_CODAS, p=_CODA_WEIGHTS / _CODA_WEIGHTS.sum()))
    return Syllable(onset, vowels, coda)
