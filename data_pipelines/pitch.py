"""Pitch shift by Signalsmith Stretch (python-stretch, MIT): a phase vocoder in C++.

The library is imported on first use, so that training without pitch shift works where it is not
installed. Its binding holds Python's lock while it works: for more than one core take worker
processes, not threads.
"""

import numpy as np

from data_pipelines.dsp import Stereo
from diffsep_jax.errors import UserError


def shift_pitch(audio: Stereo, semitones: float, sample_rate: int) -> Stereo:
    """Shifts the audio up by that many semitones; the result is float32, equally long, in step.

    A pure function: each call has a processor of its own, from one seed. `sample_rate` in Hz sets
    the size of the vocoder's blocks (0.12 s). Raises UserError if the library is missing.
    """
    try:
        from python_stretch.Signalsmith import Stretch
    except ImportError:
        raise UserError(
            "pitch shift needs the package python-stretch, which is not installed; pip install it"
            " (it is compiled on 64-bit ARM Linux), or set pitch_probability to 0"
        ) from None

    stretch = Stretch(0)
    stretch.preset(2, sample_rate)
    stretch.setTransposeSemitones(semitones)
    shifted = np.asarray(stretch.process(np.ascontiguousarray(audio.T)))
    return np.ascontiguousarray(shifted.T)
