"""The Python interface to separation: a trained model, waveforms or files in, stems out."""

import concurrent.futures
import contextlib
import dataclasses
import operator
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple, Unpack

import jax
import numpy as np
from jaxtyping import Float32, Num

from diffsep_jax.audio.read import AudioArray
from diffsep_jax.errors import UserError
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE, DEFAULT_OVERLAP, check_overlap
from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.files import FileJob, FileOptions, FileResult, separate_files
from diffsep_jax.inference.pretrained import load_default_preset, load_model
from diffsep_jax.inference.settings import (
    DEFAULT_PRESET,
    Preset,
    SamplerOptions,
    SamplerSettings,
    complete,
)
from diffsep_jax.inference.stream import Progress, separate_tracks
from diffsep_jax.inference.track import STEMS, Track, measure
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import DtypeOption, inference_dtype


class Separation(NamedTuple):
    """The two stems, in the shape and at the rate of the mixture; they add up to it."""

    vocals: Float32[np.ndarray, "*shape"]
    accompaniment: Float32[np.ndarray, "*shape"]


class Separator:
    """Separates singing from music with one model; compiles once for each sampler.

    The methods take the options in `SamplerOptions`, such as `preset="best"`, `steps=20` or
    `sampler=my_function`; options that are not given come from the model's preset. Complete
    `settings` replace all of them.

    Attributes:
      default_preset: the preset for options that are not given.
      sample_rate: the model's, in Hz; audio of other rates is resampled to it and back.
      segment: samples of a chunk at the model's rate.
      dtype: type in which the networks compute.
      num_parameters: number of parameters of both networks.
    """

    def __init__(
        self,
        model: SeparationModel,
        params: Params,
        *,
        batch_size: int | None = None,
        dtype: DtypeOption = "auto",
        default_preset: Preset = DEFAULT_PRESET,
    ) -> None:
        """Prepares a model for inference.

        Args:
          model: the networks, as `load_model` gives them.
          params: parameters of the networks.
          batch_size: chunks separated at once, which changes speed and memory, not the result;
            None is one for each of JAX's devices on CPUs (see `runtime.use_cores`), else
            `DEFAULT_BATCH_SIZE`.
          dtype: type in which the networks compute; auto is float32 on CPUs, else bfloat16.
          default_preset: the preset for options that are not given.
        """
        if batch_size is None:
            on_cpu = jax.default_backend() == "cpu"
            batch_size = jax.local_device_count() if on_cpu else DEFAULT_BATCH_SIZE
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}; expected at least 1")
        self.dtype = inference_dtype(dtype)
        compute = dataclasses.replace(model.compute, dtype=self.dtype)
        model = dataclasses.replace(model, compute=compute)
        self._chunks = ChunkSeparator(model, params, batch_size=batch_size)
        self.default_preset = default_preset
        self.sample_rate, self.segment = self._chunks.sample_rate, self._chunks.segment
        self.num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))

    @property
    def batch_size(self) -> int:
        """Chunks separated at once.

        The size asked for, up to a multiple of the devices, halved where memory is too small.
        """
        return self._chunks.batch_size

    def __repr__(self) -> str:
        return (
            f"Separator({self.num_parameters / 1e6:.1f}M parameters, {self.sample_rate} Hz,"
            f" chunks of {self.segment / self.sample_rate:.1f} s,"
            f" batch size {self.batch_size}, {self.dtype}, preset {self.default_preset})"
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str,
        *,
        batch_size: int | None = None,
        dtype: DtypeOption = "auto",
    ) -> "Separator":
        """Loads a shipped model by name, a model directory, or one at a URL.

        A URL is `hf://user/name[@revision]`, or a folder that fsspec can open, such as `s3://...`;
        only then is a network used. Raises UserError if there is no such model.
        """
        model, params = load_model(name_or_dir)
        preset = load_default_preset(name_or_dir)
        return cls(model, params, batch_size=batch_size, dtype=dtype, default_preset=preset)

    def warm_up(
        self,
        *,
        overlap: float = DEFAULT_OVERLAP,
        refines: bool = False,
        settings: SamplerSettings | None = None,
        **sampling: Unpack[SamplerOptions],
    ) -> None:
        """Compiles the program for these options, so that later timings do not include it.

        `refines` is for the program that starts from given vocals. Raises UserError for options out
        of range, as `separate` does.
        """
        settings = self._settings(settings, sampling, overlap, refines=refines)
        # In a thread, as Ctrl-C does not interrupt the compiler.
        executor = concurrent.futures.ThreadPoolExecutor(1, "diffsep-compile")
        try:
            executor.submit(self._chunks.compile, settings, refines=refines).result()
        finally:
            executor.shutdown(wait=False)

    def separate(
        self,
        waveform: Num[np.ndarray, "*shape"],
        sample_rate: int,
        *,
        overlap: float = DEFAULT_OVERLAP,
        limit_vocals: bool = True,
        refine: Num[np.ndarray, "..."] | None = None,
        on_progress: Progress | None = None,
        settings: SamplerSettings | None = None,
        **sampling: Unpack[SamplerOptions],
    ) -> Separation:
        """Separates a waveform in memory.

        Args:
          waveform: floating point, full scale 1, `[time]` (mono) or `[time, channel]` with one or
            two channels.
          sample_rate: any rate, in Hz.
          overlap: least share of a chunk that is cross-faded with the next, 0 to 0.5.
          limit_vocals: turn the vocals down where they are more than 2 dB louder than the mixture,
            as a network makes them in fades and pauses.
          refine: vocals to start from instead of the direct estimate, with a `start_sigma` below 1;
            as long as `waveform` and at its rate.
          on_progress: called with (chunks done, chunks in all).
          settings: complete settings in place of all options.
          **sampling: options, see the class.

        Raises:
          UserError: a waveform of another type or shape, empty or with NaN; options out of range.
        """
        audio, rate = _samples(waveform, "waveform"), operator.index(sample_rate)
        settings = self._settings(settings, sampling, overlap, refines=refine is not None)
        track = measure(AudioArray(audio, rate))
        guess = None
        if refine is not None:
            guess = measure(AudioArray(_samples(refine, "refine"), rate, "refine"))
        stems = Separation(np.empty_like(audio), np.empty_like(audio))
        done = 0
        for blocks in self.blocks(
            track,
            overlap=overlap,
            limit_vocals=limit_vocals,
            refine=guess,
            on_progress=on_progress,
            settings=settings,
        ):
            for stem, block in zip(stems, blocks, strict=True):
                stem[done : done + len(block)] = block
            done += len(blocks[0])
        return Separation(*(stem.reshape(np.shape(waveform)) for stem in stems))

    def blocks(
        self,
        track: Track,
        *,
        overlap: float = DEFAULT_OVERLAP,
        limit_vocals: bool = True,
        refine: Track | None = None,
        on_progress: Progress | None = None,
        settings: SamplerSettings | None = None,
        **sampling: Unpack[SamplerOptions],
    ) -> Generator[Separation]:
        """The stems of a track block by block, in bounded memory; close it to stop.

        Args:
          track: from `diffsep_jax.inference.track.measure`.
          refine: vocals to start from.

        The other arguments, and what is raised, are those of `separate`.
        """
        tracks = separate_tracks(
            [lambda: (track, refine)],
            self._chunks,
            self._settings(settings, sampling, overlap, refines=refine is not None),
            overlap=overlap,
            limit_vocals=limit_vocals,
        )
        with contextlib.closing(tracks):
            for separated in tracks:
                for vocals, accompaniment in separated.blocks(on_progress):
                    yield Separation(vocals, accompaniment)

    def separate_file(
        self,
        path: str | os.PathLike[str],
        out_dir: str | os.PathLike[str],
        *,
        refine: str | os.PathLike[str] | None = None,
        options: FileOptions | None = None,
        overlap: float = DEFAULT_OVERLAP,
        limit_vocals: bool = True,
        on_progress: Progress | None = None,
        settings: SamplerSettings | None = None,
        **sampling: Unpack[SamplerOptions],
    ) -> dict[str, Path]:
        """Separates an audio file of any length, in bounded memory, into both stems.

        Arguments that are not listed are those of `separate`.

        Args:
          path: the file.
          out_dir: folder for vocals and accompaniment, which replace earlier ones when both are
            complete. On an error or an interrupt neither is written.
          refine: a file of vocals to start from, at any rate; see `separate`.
          options: format, sample rate and excerpt; float32 wav of the whole by default.

        Returns:
          The two paths by stem.

        Raises:
          UserError: bad audio, options out of range, a folder that cannot be written.
        """
        options = options or FileOptions()
        extension = options.output.format
        outputs = {stem: Path(out_dir) / f"{stem}.{extension}" for stem in STEMS}
        job = FileJob(Path(path), outputs, None if refine is None else Path(refine))

        def report(job: FileJob, done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(done, total)

        for result in self.separate_files(
            [job],
            options,
            overlap=overlap,
            limit_vocals=limit_vocals,
            on_progress=report,
            settings=settings,
            **sampling,
        ):
            if result.error is not None:
                raise result.error
        return outputs

    def separate_files(
        self,
        jobs: Iterable[FileJob],
        options: FileOptions | None = None,
        *,
        overlap: float = DEFAULT_OVERLAP,
        limit_vocals: bool = True,
        on_progress: Callable[[FileJob, int, int], None] | None = None,
        settings: SamplerSettings | None = None,
        **sampling: Unpack[SamplerOptions],
    ) -> Generator[FileResult]:
        """Separates many files in one pass; see `diffsep_jax.inference.files.separate_files`.

        Raises:
          UserError: options out of range.
        """
        jobs = list(jobs)
        refines = any(job.refine is not None for job in jobs)
        return separate_files(
            jobs,
            self._chunks,
            self._settings(settings, sampling, overlap, refines=refines),
            options or FileOptions(),
            overlap=overlap,
            limit_vocals=limit_vocals,
            on_progress=on_progress,
        )

    def _settings(
        self,
        settings: SamplerSettings | None,
        sampling: SamplerOptions,
        overlap: float,
        *,
        refines: bool,
    ) -> SamplerSettings:
        """All settings. Raises UserError for a bad one, and for a bad overlap."""
        if settings is not None and sampling:
            raise UserError(f"settings are given; expected no {', '.join(sampling)} with them")
        settings = settings or complete(sampling, self.default_preset, refines=refines)
        if refines:
            settings.check_refines()
        check_overlap(overlap)
        least = self._chunks.min_overlap
        if overlap * self.segment < least:
            raise UserError(
                f"overlap is {overlap}; expected {least / self.segment:.3g} or more with this"
                f" model: {least} samples, two frames of its transform"
            )
        settings.check_rate(self.sample_rate)
        return settings


def _samples(waveform: Num[np.ndarray, "*shape"], name: str) -> Float32[np.ndarray, "time channel"]:
    """float32 [time, channel]. Raises UserError unless it is floating-point mono or stereo."""
    waveform = np.asarray(waveform)
    if waveform.ndim not in (1, 2) or not np.issubdtype(waveform.dtype, np.floating):
        raise UserError(
            f"{name} is {waveform.dtype} {list(waveform.shape)}; expected floating point "
            "[time] or [time, channel] with full scale 1"
        )
    if waveform.ndim == 2 and waveform.shape[1] not in (1, 2):
        raise UserError(
            f"{name} has {waveform.shape[1]} channels; expected [time, channel] "
            f"with one or two, but its shape is {list(waveform.shape)}"
        )
    with np.errstate(over="ignore"):  # `measure` refuses the infinities
        audio = waveform.astype(np.float32)
    return audio.reshape(len(waveform), -1 if waveform.size else 1)
