"""Which files of a song's folder are vocals, which the mixture: shell patterns in a small TOML.

    vocals = ["*vocal*", "*vox*", "*choir*"]       # lead and backing vocals are summed
    mixture = ["mix.*", "mixture.*"]
    accompaniment = ["*karaoke*", "no_vocals.*"]  # though a pattern of vocals may match too
    ignore = ["*.bak.*", "click*"]
    instrumentals = true                           # songs without vocals count, as silent vocals

A pattern is matched, without regard to case, with a file's path below the song's folder and with
its name. What matches nothing is accompaniment.
"""

import dataclasses
import fnmatch
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.recordings import StemFile
from diffsep_jax.errors import UserError

Kind = Literal["ignored", "mixture", "others", "vocals"]

_NO_VOCALS = tuple(
    f"{before}{lack}{voice}*"
    for lack in ("no", "no[-_ .]", "non[-_ .]", "minus*", "without*")
    for voice in ("vocal", "vox", "voice")
    for before in ("", "*[!a-z]")  # a word of its own: not the end of soprano_vocals
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterns:
    """Shell patterns of each kind of file; `ignore` is tried first, `vocals` last.

    Attributes:
        vocals: summed to the vocals.
        mixture: the released mixture.
        accompaniment: what would otherwise match as vocals.
        ignore: files that are not read.
        instrumentals: whether songs without vocals count, as silent vocals.
    """

    vocals: tuple[str, ...]
    mixture: tuple[str, ...] = ("mixture.*", "mix.*", "*/mixture.*", "*_mixture.*", "*_mix.*")
    accompaniment: tuple[str, ...] = ("*instrumental*", "*karaoke*", *_NO_VOCALS)
    ignore: tuple[str, ...] = ()
    instrumentals: bool = False

    def kind(self, folder: Path, path: Path) -> Kind:
        """What a file of the song in `folder` is."""
        ordered: dict[Kind, tuple[str, ...]] = {
            "ignored": self.ignore,
            "mixture": self.mixture,
            "others": self.accompaniment,
            "vocals": self.vocals,
        }
        names = path.relative_to(folder).as_posix().lower(), path.name.lower()
        for kind, patterns in ordered.items():
            if any(fnmatch.fnmatchcase(n, each.lower()) for each in patterns for n in names):
                return kind
        return "others"

    def sort(
        self, folder: Path, files: Sequence[Path]
    ) -> tuple[tuple[StemFile, ...], tuple[StemFile, ...], StemFile | None]:
        """(vocals, others, mixture). Raises UserError if two files match as the mixture."""
        found = [(self.kind(folder, path), StemFile(path)) for path in files]
        vocals, others, mixtures = (
            tuple(file for kind, file in found if kind == wanted)
            for wanted in ("vocals", "others", "mixture")
        )
        if len(mixtures) > 1:
            raise UserError(
                f"{folder}: holds two mixtures, {mixtures[0].path.name} and"
                f" {mixtures[1].path.name}; expected one: narrow the patterns of mixture, or ignore"
                " a file"
            )
        return vocals, others, mixtures[0] if mixtures else None


STEMS = Patterns(vocals=("*vocal*", "*vox*", "*voice*", "*singer*"))
PAIRS = Patterns(vocals=("vocals.*", "vocal.*", "*/vocals.*", "*_vocals.*", "*_vocal.*"))


def read_patterns(path: Path, default: Patterns) -> Patterns:
    """The patterns of a TOML file, over the defaults. Raises UserError naming file and field."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a TOML file of patterns") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from None
    known = {field.name: getattr(default, field.name) for field in dataclasses.fields(Patterns)}
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"{path}: {name}: unknown; expected one of {', '.join(known)}")
        if isinstance(known[name], bool):
            if not isinstance(value, bool):
                raise UserError(f"{path}: {name} is {value!r}; expected true or false")
        elif not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise UserError(f"{path}: {name} is {value!r}; expected a list of patterns")
        known[name] = tuple(value) if isinstance(value, list) else value
    return Patterns(**known)
