"""BSS Eval of separated tracks: SDR, ISR, SIR and SAR by frame, as defined by museval's v4.

An estimate e_j of the reference s_j (all channels) is split by least squares. P_j projects it onto
s_j's channels delayed by 0 to `num_taps` - 1 samples, P_all onto the channels of all references:

    e_j = s_j + e_spat + e_interf + e_artif
    e_spat = P_j e_j - s_j     e_interf = P_all e_j - P_j e_j     e_artif = e_j - P_all e_j

    SDR = |s_j|^2 / |e_j - s_j|^2            ISR = |s_j|^2 / |e_spat|^2
    SIR = |P_j e_j|^2 / |e_interf|^2         SAR = |P_all e_j|^2 / |e_artif|^2     (in dB)

This is Vincent, Gribonval and Fevotte 2006 for spatial images (Vincent et al. 2007). As in Stoeter,
Liutkus and Ito 2018, the filters of the projections are fitted once, on the whole track; each frame
is cut out, filtered with them and scored by itself.

Everything is float64. The filters solve normal equations of correlations, which are sums over
blocks, and the energies of a frame are those of its spectrum, so no array is as long as the track.
Programs are compiled for one shape of block and one of frame, which depend on the sample rate, the
window, the taps and the numbers of stems and channels, but not on the length of the track.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.linalg
from jaxtyping import Array, Complex128, Float, Float64

from diffsep_jax.metrics import LIMIT_DB, check_pair
from diffsep_jax.runtime import fixed_flags

METRICS = ("sdr", "isr", "sir", "sar")

_BLOCKS, _FRAMES = 16, 8
"""Blocks per call that correlates, frames per call that scores."""


class FrameScores(NamedTuple):
    """Scores in dB by stem and frame; NaN if any stem is silent in the frame."""

    sdr: Float64[np.ndarray, "stem frame"]
    isr: Float64[np.ndarray, "stem frame"]
    sir: Float64[np.ndarray, "stem frame"]
    sar: Float64[np.ndarray, "stem frame"]


class BssEval:
    """BSS Eval of estimates of one track, with filters fitted on the whole track.

    All references count as sources of interference. Frames start at multiples of the hop; samples
    after the last whole window belong to no frame but count in the fit of the filters. A track
    shorter than a window is one frame. A frame in which any reference or estimate is all zeros is
    NaN for every stem. (museval adds the channels first, so left = -right counts as silence there.)

    What depends on the references alone is computed once. A channel that another one of its stem
    repeats, as in a centred voice, has no filter of its own: the projections need none, and the
    equations would be singular.

    Takes about 0.4 GiB in stereo in addition to the arrays, regardless of the length. Runs in
    float64 on the default device, or on the CPU if that is a TPU.
    """

    def __init__(
        self,
        references: Float[np.ndarray, "_stem _time _channel"],
        sample_rate: int,
        *,
        window_seconds: float = 1.0,
        hop_seconds: float = 1.0,
        num_taps: int = 512,
    ) -> None:
        """Sets up the fit. Raises UserError if there are no samples, or NaN or infinity."""
        check_pair(references, references)
        self._references, self._num_taps = references, num_taps
        self._window, self._hop = (
            round(seconds * sample_rate) for seconds in (window_seconds, hop_seconds)
        )
        self._stem_of, channels = np.array(
            [
                (number, channel)
                for number, stem in enumerate(references)
                for channel in range(references.shape[2])
                if not any(_are_copies(stem[:, channel], stem[:, i]) for i in range(channel))
            ]
        ).T
        self._kept = self._stem_of * references.shape[2] + channels
        with self._in_float64():
            gram = _gram(self._correlate(references)[self._kept])
            self._solve_joint = _solver(gram)
            self._solve_own = []
            for stem in range(len(references)):
                rows = np.repeat(self._stem_of == stem, num_taps)
                self._solve_own.append(_solver(gram[np.ix_(rows, rows)]))

    def __call__(self, estimates: Float[np.ndarray, "_stem _time _channel"]) -> FrameScores:
        """Scores of estimates of the references, stem by stem.

        Raises:
          UserError: see `metrics.check_pair`.
        """
        references, window, hop = self._references, self._window, self._hop
        check_pair(references, estimates)
        num_stems, num_samples, _ = references.shape
        num_frames = 1 if num_samples <= window else 1 + (num_samples - window) // hop
        scores = np.full((len(METRICS), num_stems, num_frames), np.nan)
        with self._in_float64():
            length = _fft_length(window + self._num_taps - 1)
            own, joint = (jnp.fft.rfft(taps, length) for taps in self._fit(estimates))
            for start in range(0, num_frames, _FRAMES):
                starts = [hop * frame for frame in range(start, min(start + _FRAMES, num_frames))]
                frames = _frames(references, estimates, starts, window)
                silent = np.any(np.all(frames == 0, axis=(3, 4)), axis=(1, 2))
                decibels = _decibels(*np.asarray(_energies(frames, own, joint)))
                decibels[..., silent] = np.nan
                scores[..., start : start + len(starts)] = decibels[..., : len(starts)]
        return FrameScores(*scores)

    def _fit(
        self, estimates: np.ndarray
    ) -> tuple[
        Float64[np.ndarray, "stem channel channel tap"],
        Float64[np.ndarray, "stem channel stem channel tap"],
    ]:
        """Filters onto a stem's own reference [its channel, the estimate's], and onto all stems'.

        Those of channels that are copies are zero.
        """
        num_stems, _, num_channels = estimates.shape
        num_references, num_taps = num_stems * num_channels, self._num_taps
        # [kept reference, tap] x [estimate's channel]
        products = np.moveaxis(self._correlate(estimates), 0, 2).reshape(-1, num_references)
        joint = np.zeros((num_references, num_taps, num_references))
        own = np.zeros((num_references, num_taps, num_channels))
        joint[self._kept] = self._solve_joint(products).reshape(-1, num_taps, num_references)
        for stem in range(num_stems):
            kept = self._stem_of == stem
            rows = np.repeat(kept, num_taps)
            columns = slice(stem * num_channels, (stem + 1) * num_channels)
            solution = self._solve_own[stem](products[rows, columns])
            own[self._kept[kept]] = solution.reshape(-1, num_taps, num_channels)
        own = own.reshape(num_stems, num_channels, num_taps, num_channels)
        joint = joint.reshape(num_stems, num_channels, num_taps, num_stems, num_channels)
        return np.moveaxis(own, 2, 3), np.moveaxis(joint, 2, 4)

    def _correlate(
        self, stems: Float[np.ndarray, "_stem _time _channel"]
    ) -> Float64[np.ndarray, "signal kept tap"]:
        """sum_n z[n] r[n - tap]: z are all channels of the stems, r the kept ones of references."""
        length = _fft_length(32 * self._num_taps)
        history = self._num_taps - 1
        chunk = _BLOCKS * (length - history)
        num_samples = stems.shape[1]
        shape = (stems.shape[0] * stems.shape[2], len(self._kept), length // 2 + 1)
        spectra = jnp.zeros(shape, jnp.complex128)
        for start in range(0, num_samples, chunk):
            # The track is padded with zeros.
            span = slice(max(start - history, 0), min(start + chunk, num_samples))
            first = span.start - (start - history)
            pads = ((0, 0), (first, history + chunk - first - (span.stop - span.start)))
            signals, references = (
                np.pad(_channels(each, span), pads) for each in (stems, self._references)
            )
            spectra = _add_cross_spectra(spectra, signals, references[self._kept], history)
            spectra.block_until_ready()  # or calls would queue up and keep the whole track
        return np.asarray(jnp.fft.irfft(spectra, length)[..., : self._num_taps])

    @contextlib.contextmanager
    def _in_float64(self) -> Iterator[None]:
        with fixed_flags(), jax.enable_x64(True), jax.default_device(_device()):
            yield


def median_over_frames(scores: FrameScores, stem: int) -> dict[str, float | None]:
    """A stem's scores of a track: medians over the frames that are not NaN.

    Returns `chunk_sdr`, `chunk_isr`, `chunk_sir` and `chunk_sar` in dB, None if all frames are NaN.
    """
    medians: dict[str, float | None] = {}
    for name, values in zip(METRICS, scores, strict=True):
        finite = values[stem][~np.isnan(values[stem])]
        medians[f"chunk_{name}"] = float(np.median(finite)) if len(finite) else None
    return medians


def num_frames_scored(scores: FrameScores) -> int:
    """The number of frames that are not NaN; they are the same for every stem and metric."""
    return int(np.count_nonzero(~np.isnan(scores.sdr[0])))


def _device() -> jax.Device:
    """The default device, or the CPU if that has no float64 FFT."""
    has_float64 = jax.default_backend() in ("cpu", "gpu")
    return jax.local_devices(backend=None if has_float64 else "cpu")[0]


def _fft_length(least: int) -> int:
    """An even length of at least `least` for which a real FFT is fast."""
    return 2 * scipy.fft.next_fast_len(-(-least // 2), real=True)


def _channels(stems: np.ndarray, span: slice) -> Float64[np.ndarray, "signal time"]:
    """All channels of all stems."""
    return np.moveaxis(stems[:, span], 2, 1).reshape(-1, span.stop - span.start).astype(np.float64)


def _frames(
    references: np.ndarray, estimates: np.ndarray, starts: list[int], window: int
) -> Float64[np.ndarray, "frame 2 stem channel time"]:
    """`_FRAMES` frames, padded with zeros after the last of `starts` and after the track's end."""
    num_stems, num_samples, num_channels = references.shape
    frames = np.zeros((_FRAMES, 2, num_stems, num_channels, window))
    for frame, start in zip(frames, starts, strict=False):
        span = slice(start, min(start + window, num_samples))
        for half, stems in zip(frame, (references, estimates), strict=True):
            half[..., : span.stop - start] = np.moveaxis(stems[:, span], 2, 1)
    return frames


def _are_copies(channel: np.ndarray, other: np.ndarray) -> bool:
    """Whether one channel is the other, perhaps with its polarity reversed."""
    return np.array_equal(channel, other) or np.array_equal(channel, -other)


def _gram(correlations: Float64[np.ndarray, "reference reference tap"]) -> np.ndarray:
    """The matrix of the normal equations, [reference, tap] x [reference, tap]."""
    numbers = range(len(correlations))
    blocks = [
        [scipy.linalg.toeplitz(correlations[j, i], correlations[i, j]) for j in numbers]
        for i in numbers
    ]
    return np.block(blocks)


def _solver(gram: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Products -> the least squares' solution, by the normal equations, which may be singular.

    As in museval, the tiny diagonal gives silent channels filters of zeros and changes nothing
    else; if the elimination fails, as for clicks, the least-norm solution is taken.
    """
    diagonal = np.finfo(np.float64).eps * np.eye(len(gram))
    factors, pivots, first_zero = scipy.linalg.lapack.dgetrf(gram + diagonal)
    if first_zero:
        return lambda products: np.linalg.lstsq(gram, products, rcond=None)[0]
    return lambda products: scipy.linalg.lu_solve((factors, pivots), products, check_finite=False)


@functools.partial(jax.jit, static_argnames="history", donate_argnums=0)
def _add_cross_spectra(
    spectra: Complex128[Array, "signal reference frequency"],
    signals: Float64[Array, "signal time"],
    references: Float64[Array, "reference time"],
    history: int,
) -> Complex128[Array, "signal reference frequency"]:
    """Adds the blocks of a chunk.

    The references' blocks begin `history` samples earlier, so that lags of up to `history` samples
    stay within the block and nothing wraps around.
    """
    num_signals, num_references, num_bins = spectra.shape
    length = 2 * (num_bins - 1)
    step = length - history
    num_blocks = (signals.shape[1] - history) // step
    current = signals[:, history:].reshape(num_signals, num_blocks, step)
    current = jnp.pad(current, ((0, 0), (0, 0), (history, 0)))
    index = np.arange(num_blocks)[:, None] * step + np.arange(length)[None, :]
    current, delayed = jnp.fft.rfft(current), jnp.fft.rfft(references[:, index])
    # One sum per pair compiles to a single pass over the spectra; a batched product takes five
    # times as long on a CPU.
    sums = [
        jnp.stack([(current[i] * delayed[j].conj()).sum(axis=0) for j in range(num_references)])
        for i in range(num_signals)
    ]
    return spectra + jnp.stack(sums)


@jax.jit
def _energies(
    frames: Float64[Array, "frame 2 stem channel time"],
    own: Complex128[Array, "stem channel channel frequency"],
    joint: Complex128[Array, "stem channel stem channel frequency"],
) -> Float64[Array, "part stem frame"]:
    """Energies of s, e - s, e_spat, P_own e, e_interf, P_all e and e_artif.

    The spectra are longer than frame and filter together, so by Parseval's theorem they have the
    energies of the whole filtered frames including their tails.
    """
    num_bins = own.shape[-1]
    length = 2 * (num_bins - 1)
    spectra = jnp.fft.rfft(frames, length)
    reference, estimate = spectra[:, 0], spectra[:, 1]
    on_own = (reference[:, :, :, None] * own[None]).sum(axis=2)
    on_all = (reference[:, :, :, None, None] * joint[None]).sum(axis=(1, 2))
    weights = jnp.full(num_bins, 2.0 / length).at[jnp.array([0, num_bins - 1])].set(1.0 / length)

    def energy(spectrum: Complex128[Array, "frame stem channel frequency"]) -> Array:
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        return (power * weights[None, None, None]).sum(axis=(2, 3)).T

    return jnp.stack(
        [
            jnp.square(frames[:, 0]).sum(axis=(2, 3)).T,
            jnp.square(frames[:, 1] - frames[:, 0]).sum(axis=(2, 3)).T,
            energy(on_own - reference),
            energy(on_own),
            energy(on_all - on_own),
            energy(on_all),
            energy(estimate - on_all),
        ]
    )


def _decibels(
    reference: Float64[np.ndarray, "stem frame"],
    error: Float64[np.ndarray, "stem frame"],
    spatial: Float64[np.ndarray, "stem frame"],
    own: Float64[np.ndarray, "stem frame"],
    interference: Float64[np.ndarray, "stem frame"],
    projected: Float64[np.ndarray, "stem frame"],
    artifacts: Float64[np.ndarray, "stem frame"],
) -> Float64[np.ndarray, "4 stem frame"]:
    """The four ratios, in the order of `METRICS`."""
    signal = np.stack([reference, reference, own, projected])
    noise = np.stack([error, spatial, interference, artifacts])
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 10 * (np.log10(signal) - np.log10(noise))
    # 0 / 0 has no error either.
    return np.where(noise == 0, LIMIT_DB, np.clip(scores, -LIMIT_DB, LIMIT_DB))
