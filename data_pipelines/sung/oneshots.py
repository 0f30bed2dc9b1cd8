"""Drums, tabla, electronic percussion, impacts and swooshes of the package sonic-pi-samples.

Each is listed as CC0 in the package's copyright file. Left out: what is a voice or resembles one
(ambi_choir, ambi_haunted_hum, ambi_glass_hum, bass_voxy*, misc_burp, misc_crow, vinyl_scratch),
tuned sounds (guit_*, bass_*, ambi_piano), loops, some of which hold voices or known records
(loop_*), and everything that the copyright file does not list (ambi_sauna, bd_mehackit, glitch_*,
mehackit_*, perc_bell2, perc_door, perc_impact*, perc_swoosh, sn_generic).
"""

import functools
from pathlib import Path

import numpy as np
import soundfile
import soxr

from data_pipelines.dsp import Stereo

FOLDER = Path("/usr/share/sonic-pi/samples")
SAMPLES = {
    "kick": "bd_808 bd_ada bd_boom bd_fat bd_gas bd_haus bd_klub bd_pure bd_sone bd_tek bd_zome "
    "bd_zum drum_bass_hard drum_heavy_kick elec_hollow_kick elec_soft_kick",
    "snare": "drum_snare_hard drum_snare_soft elec_hi_snare elec_lo_snare elec_mid_snare "
    "elec_snare sn_dolf sn_dub sn_zome perc_snap perc_snap2 elec_filt_snare",
    "hat": "drum_cymbal_closed drum_cymbal_pedal elec_tick elec_pop elec_cymbal",
    "crash": "drum_cymbal_hard drum_cymbal_open drum_cymbal_soft drum_splash_hard drum_splash_soft",
    "tom": "drum_tom_hi_hard drum_tom_lo_hard drum_tom_mid_hard elec_fuzz_tom",
    "percussion": "drum_cowbell elec_beep elec_bell elec_blip elec_blip2 elec_blup elec_bong "
    "elec_flip elec_ping elec_plip elec_triangle elec_twang elec_twip elec_wood perc_till "
    "tabla_dhec tabla_ghe1 tabla_ghe4 tabla_ghe8 tabla_ke1 tabla_ke2 tabla_ke3 tabla_na "
    "tabla_na_s tabla_re tabla_te1 tabla_te2 tabla_te_m tabla_te_ne tabla_tun1 perc_swash",
    "rise": "ambi_swoosh ambi_dark_woosh drum_roll vinyl_rewind",
    "impact": "misc_cineboom bd_boom perc_bell elec_chime ambi_lunar_land",
}
"""Names by family."""


@functools.cache
def load(name: str, sample_rate: int) -> Stereo:
    """One sample in stereo, its peak at 1; silence where the package is not installed."""
    path = FOLDER / f"{name}.flac"
    if not path.is_file():
        return np.zeros((1, 2), np.float32)
    x, rate = soundfile.read(path, dtype="float32", always_2d=True)
    x = np.repeat(x, 2, axis=1)[:, :2] if x.shape[1] == 1 else x
    x = soxr.resample(x, rate, sample_rate)
    return x / np.float32(np.abs(x).max() + 1e-9)
