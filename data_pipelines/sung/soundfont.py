"""Notes through a General MIDI sound font, by the library of FluidSynth inside this process.

Its own reverb and chorus are off and no clock is involved, so that the samples are a function of
the notes; a font is loaded once per process. (A process per part would load it each time, which
takes ten times as long as the rendering.)
"""

import ctypes
import ctypes.util
import functools
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.dsp import Stereo, Track
from data_pipelines.embedded.composition import Note
from diffsep_jax.errors import UserError

BEND_HOP = 256
"""Samples between two values of a pitch bend."""

_BLOCK = 64  # FluidSynth renders in blocks of this size
_BEND_RANGE = 12
FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts")
_NAMES = ("FluidR3_GM.sf2", "MuseScore_General.sf2", "MuseScore_General.sf3")
_NOT_A_FONT = f"{{}}: not a sound font; expected .sf2 or .sf3 such as {_NAMES[0]}"
_PACKAGES = "fluid-soundfont-gm or musescore-general-soundfont-small (Debian's names)"


def find_fonts() -> tuple[Path, ...]:
    """General MIDI fonts in the system's folders. Raises `UserError` if none is installed."""
    paths = [Path(folder, name) for name in _NAMES for folder in FOLDERS]
    fonts = tuple(path for path in paths if path.is_file())
    if not fonts:
        raise UserError(f"no sound font in {', '.join(FOLDERS)}; install {_PACKAGES}")
    return fonts


def check(font: Path) -> None:
    """Raises `UserError` if FluidSynth is missing, or if `font` is not a sound font."""
    library()
    if not font.is_file():
        raise UserError(f"{font}: no such sound font; install {_PACKAGES}")
    with font.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(_NOT_A_FONT.format(font))


def play_notes(
    notes: Iterable[Note],
    num_samples: int,
    sample_rate: int,
    *,
    font: Path,
    bank: int = 0,
    program: int,
    cents: float = 0.0,
    bend: Track | None = None,
) -> Stereo:
    """Renders notes on one program, dry; pitches are rounded to semitones, then tuned by `cents`.

    `bank` 128 holds the drum kits; kit 0 replaces one that the font lacks. `bend` is in semitones,
    up to an octave, one value every `BEND_HOP` samples. Raises `UserError` as `check` does.
    """
    lib = library()
    loaded = _load(font)
    # A new synthesiser each time: after a reset, notes still start slightly differently.
    settings = _settings(sample_rate)
    synth = lib.new_fluid_synth(settings)
    font_id = lib.fluid_synth_add_sfont(synth, loaded)
    # General MIDI requires all programs, but only one drum kit.
    wanted = (program, 0) if bank == 128 else (program,)
    if all(lib.fluid_synth_program_select(synth, 0, font_id, bank, number) for number in wanted):
        raise UserError(f"{font}: has no program {program} in bank {bank}; use a General MIDI font")
    lib.fluid_synth_pitch_wheel_sens(synth, 0, _BEND_RANGE)
    lib.fluid_synth_set_gen(synth, 0, 52, ctypes.c_float(cents))
    events = _events(notes, num_samples, sample_rate, bend)
    out = np.zeros((2, num_samples + _BLOCK), np.float32)
    pointers = (ctypes.c_void_p * 2)()

    def render(start: int, stop: int) -> None:
        pointers[:] = [row.ctypes.data + 4 * start for row in out]
        lib.fluid_synth_process(synth, stop - start, 0, None, 2, pointers)

    last = num_samples // _BLOCK * _BLOCK + _BLOCK
    for (at, kind, key, value), (following, *_) in itertools.pairwise([*events, (last, 0, 0, 0)]):
        if kind == 2:
            lib.fluid_synth_noteon(synth, 0, key, value)
        elif kind == 1:
            lib.fluid_synth_pitch_bend(synth, 0, value)
        else:
            lib.fluid_synth_noteoff(synth, 0, key)
        sounding = kind == 2 or lib.fluid_synth_get_active_voice_count(synth)
        if following > at and sounding:
            render(at, following)
    lib.fluid_synth_remove_sfont(synth, loaded)
    lib.delete_fluid_synth(synth)
    return out[:, :num_samples].T


def _events(
    notes: Iterable[Note], num_samples: int, sample_rate: int, bend: Track | None
) -> list[tuple[int, int, int, int]]:
    """(sample, kind, key, value), in order: ends of notes (0), bends (1), starts (2)."""
    events, stop = [], num_samples // _BLOCK * _BLOCK
    for note in notes:
        start = max(0, int(note.start * sample_rate) // _BLOCK) * _BLOCK
        end = max(start + _BLOCK, int(note.end * sample_rate) // _BLOCK * _BLOCK)
        key, velocity = round(note.pitch), int(np.clip(127 * note.velocity, 1, 127))
        if start < num_samples and 0 <= key < 128:
            events += [(start, 2, key, velocity), (min(end, stop), 0, key, 0)]
    if bend is not None:
        wheel = np.clip(np.rint(8192 * (1 + bend / _BEND_RANGE)), 0, 16383).astype(int)
        frames = np.flatnonzero(np.diff(wheel, prepend=8192))
        frames = frames[frames * BEND_HOP < num_samples]
        events += [(int(frame) * BEND_HOP, 1, 0, int(wheel[frame])) for frame in frames]
    return sorted(events)


class _Pointer(ctypes.c_void_p):
    """An address; ctypes would turn a plain c_void_p into an int, and pass that as 32 bits."""


@functools.cache
def library() -> Any:
    """libfluidsynth. Raises `UserError` if it is not installed."""
    name = ctypes.util.find_library("fluidsynth")
    if name is None:
        raise UserError("FluidSynth is not installed; install the system package fluidsynth")
    lib = ctypes.CDLL(name)
    for function in ("new_fluid_settings", "new_fluid_synth", "fluid_synth_get_sfont_by_id"):
        getattr(lib, function).restype = _Pointer
    for level in range(5):
        lib.fluid_set_log_function(level, None, None)
    return lib


@functools.cache
def _settings(sample_rate: int) -> _Pointer:
    """The settings of a synthesiser."""
    lib = library()
    settings: _Pointer = lib.new_fluid_settings()
    for name, value in (("chorus.active", 0), ("reverb.active", 0), ("polyphony", 256)):
        lib.fluid_settings_setint(settings, f"synth.{name}".encode(), value)
    lib.fluid_settings_setnum(settings, b"synth.sample-rate", ctypes.c_double(sample_rate))
    lib.fluid_settings_setnum(settings, b"synth.gain", ctypes.c_double(0.5))
    return settings


@functools.cache
def _load(font: Path) -> _Pointer:
    """A font in memory, where it stays as long as the process lives."""
    check(font)
    lib = library()
    owner = lib.new_fluid_synth(_settings(44100))
    font_id = lib.fluid_synth_sfload(owner, str(font).encode(), 0)
    if font_id < 0:
        raise UserError(_NOT_A_FONT.format(font))
    loaded: _Pointer = lib.fluid_synth_get_sfont_by_id(owner, font_id)
    return loaded
