"""The Python interface to separation: a trained model, waveforms or files in, stems out."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from diffsep_jax.audio import AudioArray, AudioFile
from diffsep_jax.encoding import OutputFormat, stems_writer
from diffsep_jax.errors import UserError
from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.pretrained import load_model
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import (
    DEFAULT_OVERLAP,
    STEMS,
    ChunkModel,
    Chunks,
    Progress,
    Starts,
    Track,
    check_overlap,
    measure,
    separate_track,
)
from diffsep_jax.output import new_folder
from diffsep_jax.separation_model import Params, SeparationModel


class Separation(NamedTuple):
    """The two stems, in the shape and at the rate of the mixture; they add up to it."""

    vocals: Float32[np.ndarray, "*shape"]
    accompaniment: Float32[np.ndarray, "*shape"]


class Separator:
    """Separates singing from music with one model; compiles once, whatever the options.

    `settings` of the methods are the fields of `SamplerSettings`: sampler, steps, eta, cutoff_hz,
    start_sigma, ensemble and seed.
    """

    def __init__(self, model: SeparationModel, params: Params, *, batch_size: int = 4) -> None:
        """Prepares a model for inference.

        Args:
          model, params: as `load_model` gives them.
          batch_size: chunks separated at once; it changes speed and memory, not the result.
        """
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}, expected at least 1")
        self._separate_chunks = ChunkSeparator(model, params, batch_size=batch_size)
        self._target_rms = model.target_rms

    @classmethod
    def from_pretrained(cls, name_or_dir: str, *, batch_size: int = 4) -> "Separator":
        """Loads a shipped model by name, or a model directory. UserError lists the names."""
        model, params = load_model(name_or_dir)
        return cls(model, params, batch_size=batch_size)

    def warm_up(self, *, overlap: float = DEFAULT_OVERLAP, **settings: Any) -> None:
        """Compiles the program that these options run, so that no time taken later includes it.

        Raises UserError for options out of range, as `separate` does.
        """
        checked = SamplerSettings(**settings)
        self._bind(checked, overlap)
        one_step = dataclasses.replace(checked, steps=1, ensemble=1)  # both are runtime values
        chunks = self._separate_chunks
        moment = np.ones((1, 2), np.float32)  # silence would not reach the program
        self.separate(moment, chunks.sample_rate, **dataclasses.asdict(one_step))

    def separate(
        self,
        waveform: Num[np.ndarray, "*shape"],
        sample_rate: int,
        *,
        overlap: float = DEFAULT_OVERLAP,
        refine: Num[np.ndarray, "..."] | None = None,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> Separation:
        """Separates a waveform in memory.

        Args:
          waveform: floating point, full scale 1, `[time]` (mono) or `[time, channel]` with one or
            two channels.
          sample_rate: in Hz, any.
          overlap: share of a chunk that is cross-faded with the next, 0 to 0.5.
          refine: vocals to start from instead of the direct estimate, with a `start_sigma` below 1;
            as long as `waveform` and at its rate.
          on_progress: called with (chunks done, chunks in all).
          **settings: see the class.

        Raises:
          UserError: a waveform of another kind, with no sample or with NaN; options out of range.
        """
        audio = _samples(waveform, "waveform")
        model = self._bind(SamplerSettings(**settings), overlap, refines=refine is not None)
        track = measure(AudioArray(audio, int(sample_rate)))
        guess = None
        if refine is not None:
            guess = measure(AudioArray(_samples(refine, "refine"), int(sample_rate), "refine"))
        stems = Separation(np.empty_like(audio), np.empty_like(audio))
        done = 0
        for blocks in separate_track(
            track, model, overlap=overlap, guess=guess, on_progress=on_progress
        ):
            for stem, block in zip(stems, blocks, strict=True):
                stem[done : done + len(block)] = block
            done += len(blocks[0])
        return Separation(*(stem.reshape(np.shape(waveform)) for stem in stems))

    def separate_file(
        self,
        path: str | os.PathLike[str] | Track,
        out_dir: str | os.PathLike[str],
        *,
        overlap: float = DEFAULT_OVERLAP,
        refine: str | os.PathLike[str] | Track | None = None,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> dict[str, Path]:
        """Separates an audio file of any length into float32 wav files, in bounded memory.

        Args:
          path: the file, or a `Track` of it that was measured before.
          out_dir: gets vocals.wav and accompaniment.wav, which replace earlier ones when they are
            complete. On an error or an interrupt neither is written.
          refine: as in `separate`, but a file, or a `Track` of it; at any rate.
          overlap, on_progress, **settings: as in `separate`.

        Returns:
          The two paths by stem.

        Raises:
          UserError: bad audio, options out of range, a folder that cannot be written.
        """
        model = self._bind(SamplerSettings(**settings), overlap, refines=refine is not None)
        track = _measured(path)
        guess = None if refine is None else _measured(refine)
        paths = {stem: Path(out_dir) / f"{stem}.wav" for stem in STEMS}
        with (
            new_folder(Path(out_dir)),
            stems_writer(
                paths,
                OutputFormat(),
                sample_rate=track.source.sample_rate,
                num_channels=track.source.num_channels,
                num_frames=track.num_frames,
            ) as writer,
        ):
            for blocks in separate_track(
                track, model, overlap=overlap, guess=guess, on_progress=on_progress
            ):
                for stem, block in zip(STEMS, blocks, strict=True):
                    writer.write(stem, block)
        return paths

    def _bind(
        self, settings: SamplerSettings, overlap: float, *, refines: bool = False
    ) -> ChunkModel:
        check_overlap(overlap)
        if refines:
            settings.check_refines()
        chunks = self._separate_chunks
        nyquist = chunks.sample_rate / 2
        if settings.cutoff_hz is not None and settings.cutoff_hz >= nyquist:
            raise UserError(
                f"cutoff_hz {settings.cutoff_hz}, expected less than {nyquist}: "
                f"half of the model's {chunks.sample_rate} Hz"
            )

        def separate(mixture: Chunks, starts: Starts, guess: Chunks | None = None) -> Chunks:
            return chunks(mixture, starts, settings, guess)

        return ChunkModel(
            separate=separate,
            segment=chunks.segment,
            stride=chunks.stride,
            sample_rate=chunks.sample_rate,
            batch_size=chunks.batch_size,
            target_rms=self._target_rms,
        )


def _samples(waveform: Num[np.ndarray, "*shape"], name: str) -> Float32[np.ndarray, "time channel"]:
    """float32 [time, channel]. UserError if it is no floating-point mono or stereo audio."""
    waveform = np.asarray(waveform)
    if waveform.ndim not in (1, 2) or not np.issubdtype(waveform.dtype, np.floating):
        raise UserError(
            f"{name} is {waveform.dtype} {list(waveform.shape)}, expected floating point "
            "[time] or [time, channel] with full scale 1"
        )
    if waveform.ndim == 2 and waveform.shape[1] not in (1, 2):
        raise UserError(
            f"{name} has {waveform.shape[1]} channels, expected [time, channel] "
            f"with one or two, but its shape is {list(waveform.shape)}"
        )
    with np.errstate(over="ignore"):  # what leaves float32 is refused below, as infinite
        audio = waveform.astype(np.float32)
    return audio.reshape(len(waveform), -1 if waveform.size else 1)


def _measured(audio: str | os.PathLike[str] | Track) -> Track:
    return audio if isinstance(audio, Track) else measure(AudioFile(audio))
