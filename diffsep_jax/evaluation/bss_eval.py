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

import functools
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


def bss_eval(
    references: Float[np.ndarray, "_stem _time _channel"],
    estimates: Float[np.ndarray, "_stem _time _channel"],
    sample_rate: int,
    *,
    window_seconds: float = 1.0,
    hop_seconds: float = 1.0,
    num_taps: int = 512,
) -> FrameScores:
    """BSS Eval of every stem of one track, with filters fitted on the whole track.

    Stem i of the estimates is an estimate of stem i of the references; all references count as
    sources of interference. Frames start at multiples of the hop; samples after the last whole
    window belong to no frame but count in the fit of the filters. A track shorter than a window is
    one frame. A frame in which any reference or estimate is all zeros is NaN for every stem.
    (museval adds the channels first, so left = -right counts as silence there.)

    Takes about 0.4 GiB in stereo in addition to the arrays, regardless of the length. Runs in
    float64 on the default device, or on the CPU if that is a TPU.

    Raises:
      UserError: see `metrics.check_pair`.
    """
    window, hop = (round(seconds * sample_rate) for seconds in (window_seconds, hop_seconds))
    check_pair(references, estimates)
    num_stems, num_samples, num_channels = references.shape
    num_frames = 1 if num_samples <= window else 1 + (num_samples - window) // hop
    scores = np.full((len(METRICS), num_stems, num_frames), np.nan)
    with fixed_flags(), jax.enable_x64(True), jax.default_device(_device()):
        correlations = _correlations(references, estimates, num_taps)
        length = _fft_length(window + num_taps - 1)
        own, joint = (
            jnp.fft.rfft(taps, length) for taps in _fit(correlations, num_stems, num_channels)
        )
        for start in range(0, num_frames, _FRAMES):
            starts = [hop * frame for frame in range(start, min(start + _FRAMES, num_frames))]
            frames = _frames(references, estimates, starts, window)
            silent = np.any(np.all(frames == 0, axis=(3, 4)), axis=(1, 2))
            decibels = _decibels(*np.asarray(_energies(frames, own, joint)))
            decibels[..., silent] = np.nan
            scores[..., start : start + len(starts)] = decibels[..., : len(starts)]
    return FrameScores(*scores)


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


def _signals(
    references: np.ndarray, estimates: np.ndarray, span: slice
) -> Float64[np.ndarray, "2 stem channel time"]:
    samples = np.stack([references[:, span], estimates[:, span]])
    return np.moveaxis(samples, 2, 3).astype(np.float64)


def _frames(
    references: np.ndarray, estimates: np.ndarray, starts: list[int], window: int
) -> Float64[np.ndarray, "frame 2 stem channel time"]:
    """`_FRAMES` frames, padded with zeros after the last of `starts` and after the track's end."""
    num_stems, num_samples, num_channels = references.shape
    frames = np.zeros((_FRAMES, 2, num_stems, num_channels, window))
    for frame, start in zip(frames, starts, strict=False):
        span = slice(start, min(start + window, num_samples))
        frame[..., : span.stop - start] = _signals(references, estimates, span)
    return frames


def _correlations(
    references: np.ndarray, estimates: np.ndarray, num_taps: int
) -> Float64[np.ndarray, "signal reference tap"]:
    """sum_n z[n] r[n - tap]: z are all channels of references and estimates, r of references."""
    length = _fft_length(32 * num_taps)
    history = num_taps - 1
    chunk = _BLOCKS * (length - history)
    num_samples = references.shape[1]
    num_signals = 2 * references.shape[0] * references.shape[2]
    shape = (num_signals, num_signals // 2, length // 2 + 1)
    spectra = jnp.zeros(shape, jnp.complex128)
    for start in range(0, num_samples, chunk):
        # The track is padded with zeros.
        chunk_signals = np.zeros((num_signals, history + chunk))
        span = slice(max(start - history, 0), min(start + chunk, num_samples))
        first = span.start - (start - history)
        samples = _signals(references, estimates, span).reshape(num_signals, -1)
        chunk_signals[:, first : first + samples.shape[1]] = samples
        # Without waiting, calls would queue up and keep the whole track in memory.
        spectra = jax.block_until_ready(_add_cross_spectra(spectra, chunk_signals, history))
    return np.asarray(jnp.fft.irfft(spectra, length)[..., :num_taps])


@functools.partial(jax.jit, static_argnames="history", donate_argnums=0)
def _add_cross_spectra(
    spectra: Complex128[Array, "signal reference frequency"],
    signals: Float64[Array, "signal time"],
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
    current, delayed = jnp.fft.rfft(current), jnp.fft.rfft(signals[:num_references, index])
    # One sum per pair compiles to a single pass over the spectra; a batched product takes five
    # times as long on a CPU.
    sums = [
        jnp.stack([(current[i] * delayed[j].conj()).sum(axis=0) for j in range(num_references)])
        for i in range(num_signals)
    ]
    return spectra + jnp.stack(sums)


def _fit(
    correlations: Float64[np.ndarray, "signal reference tap"], num_stems: int, num_channels: int
) -> tuple[
    Float64[np.ndarray, "stem channel channel tap"],
    Float64[np.ndarray, "stem channel stem channel tap"],
]:
    """Filters onto a stem's own reference [its channel, the estimate's], and onto all stems'."""
    num_references = num_stems * num_channels
    num_taps = correlations.shape[-1]
    of_references, of_estimates = np.split(correlations, 2)
    gram = np.block(
        [
            [
                scipy.linalg.toeplitz(of_references[j, i], of_references[i, j])
                for j in range(num_references)
            ]
            for i in range(num_references)
        ]
    )
    # [reference, tap] x [estimate's channel]
    products = np.moveaxis(of_estimates, 0, 2).reshape(-1, num_references)
    joint = _solve(gram, products).reshape(
        num_stems, num_channels, num_taps, num_stems, num_channels
    )
    own = np.zeros((num_stems, num_channels, num_taps, num_channels))
    for stem in range(num_stems):
        rows = slice(stem * num_channels * num_taps, (stem + 1) * num_channels * num_taps)
        columns = slice(stem * num_channels, (stem + 1) * num_channels)
        solution = _solve(gram[rows, rows], products[rows, columns])
        own[stem] = solution.reshape(num_channels, num_taps, num_channels)
    return np.moveaxis(own, 2, 3), np.moveaxis(joint, 2, 4)


def _solve(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Least squares by the normal equations, which may be singular.

    As in museval, the tiny diagonal gives silent channels filters of zeros and changes nothing
    else; if the elimination fails, as for two equal channels, the least-norm solution is taken.
    """
    diagonal = np.finfo(np.float64).eps * np.eye(len(gram))
    try:
        return np.linalg.solve(gram + diagonal, products)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(gram, products, rcond=None)[0]


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
