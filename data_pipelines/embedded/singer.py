"""Who sings: the body and the manner of a voice, drawn at random."""

import dataclasses

import numpy as np
from numpy.random import Generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manner:
    """How a voice moves in pitch.

    Attributes:
        glide: seconds of a pitch change.
        scoop: chance that a phrase's note is reached from below.
        speech: half spoken: pitch follows speech contours, syllables are short.
        drift: slow wandering of the pitch in semitones.
        hard_tuned: notes are hit exactly, without scoops and falls.
    """

    jitter: float
    vibrato_hz: float
    vibrato_cents: float
    vibrato_delay: float
    glide: float
    scoop: float
    speech: bool = False
    drift: float = 0.12
    hard_tuned: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Singer(Manner):
    """One voice: its body and its manner. Levels are relative to the voiced sound.

    Attributes:
        tract: factor on male formants: 1 for a man, about 1.17 for a woman, 1.3 for a child.
        centre: middle of the comfortable range, MIDI.
        open_quotient: share of a cycle in which the glottis is open; 0.45 is pressed, 0.85 is
            breathy.
        brightness_hz: where the source's extra spectral fall begins at full effort.
        ring_db: singer's formant: how far F3 to F5 close up and ring.
        formant_spread: personal factors on the first three formants.
        whisper: the vocal folds stay open: breath alone excites the tract.
        silent_rests: rests are silent; else the voice of an onset consonant swells through the rest
            before it.
    """

    tract: float
    centre: float
    open_quotient: float
    brightness_hz: float
    ring_db: float
    breath: float
    shimmer: float
    roughness: float
    nasality: float
    sibilance: float
    formant_spread: tuple[float, float, float]
    whisper: bool = False
    silent_rests: bool = False


def random_singer(rng: Generator) -> Singer:
    """Draws a singer: man, woman or child; pop, breathy, rough, operatic or rapping."""
    kind = rng.choice(["male", "female", "child"], p=[0.47, 0.47, 0.06])
    tract, centre = {
        "male": (rng.normal(1.0, 0.05), rng.uniform(50, 62)),
        "female": (rng.normal(1.16, 0.05), rng.uniform(59, 72)),
        "child": (rng.normal(1.3, 0.05), rng.uniform(63, 74)),
    }[str(kind)]
    manner = rng.choice(
        ["pop", "breathy", "rough", "classical", "rap"], p=[0.5, 0.18, 0.12, 0.1, 0.1]
    )
    classical, breathy, rough = manner == "classical", manner == "breathy", manner == "rough"
    return Singer(
        tract=float(np.clip(tract, 0.88, 1.42)),
        centre=float(centre - 5 * (manner == "rap")),
        open_quotient=float(rng.uniform(0.7, 0.88) if breathy else rng.uniform(0.42, 0.72)),
        brightness_hz=float(
            np.exp(rng.uniform(np.log(2200), np.log(9000))) * (0.6 if breathy else 1)
        ),
        ring_db=float(rng.uniform(8, 15) if classical else max(0.0, rng.normal(3, 3))),
        breath=float(rng.uniform(0.04, 0.12) if breathy else np.exp(rng.uniform(-4.9, -3.0))),
        jitter=float(rng.uniform(0.002, 0.007) * (3 if rough else 1)),
        shimmer=float(rng.uniform(0.02, 0.06) * (2 if rough else 1)),
        roughness=float(rng.uniform(0.1, 0.45) if rough else 0.0),
        vibrato_hz=float(rng.uniform(4.6, 6.8)),
        vibrato_cents=float(rng.uniform(50, 110) if classical else rng.choice([8, 25, 45, 65, 90])),
        vibrato_delay=float(rng.uniform(0.05, 0.15) if classical else rng.uniform(0.12, 0.45)),
        glide=float(np.exp(rng.uniform(np.log(0.025), np.log(0.12)))),
        scoop=float(rng.choice([0.05, 0.3, 0.6])),
        nasality=float(max(0.0, rng.normal(0.0, 0.3))),
        sibilance=float(np.exp(rng.normal(0, 0.35))),
        speech=bool(manner == "rap"),
        formant_spread=tuple(float(x) for x in rng.normal(1, 0.04, 3)),  # type: ignore[arg-type]
    )
