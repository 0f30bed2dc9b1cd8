"""Which files of a song's folder are vocals, which the mixture: shell patterns in a small TOML.

    vocals = ["*vocal*", "*vox*", "*choir*"]      # lead and backing vocals are summed
    mixture = ["mix.*", "mixture.*"]
    ignore = ["*.bak.*", "click*"]
    instrumentals = true                          # songs without vocals count, as silent vocals

A pattern is matched, without regard to case, with a file's path below the song's folder and with
its name. What matches nothing is accompaniment.
"""

import dataclasses
import fnmatch
import tomllib
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.builders.recordings import StemFile
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterns:
    """What tells the files of a song apart; `ignore` goes first, then `mixture`, then `vocals`."""

    vocals: tuple[str, ...]
    mixture: tuple[str, ...] = ("mixture.*", "mix.*", "*/mixture.*", "*_mixture.*", "*_mix.*")
    ignore: tuple[str, ...] = ()
    instrumentals: bool = False

    def sort(
        self, folder: Path, files: Sequence[Path]
    ) -> tuple[tuple[StemFile, ...], tuple[StemFile, ...], StemFile | None]:
        """(vocals, others, mixture). UserError where two files match as the mixture."""
        kinds: dict[str, list[Path]] = {"vocals": [], "others": [], "mixture": []}
        for path in files:
            if not _matches(path, folder, self.ignore):
                if _matches(path, folder, self.mixture):
                    kind = "mixture"
                else:
                    kind = "vocals" if _matches(path, folder, self.vocals) else "others"
                kinds[kind].append(path)
        mixtures = kinds["mixture"]
        if len(mixtures) > 1:
            raise UserError(
                f"{mixtures[1]}: a second mixture beside {mixtures[0].name}; narrow the patterns of"
                " mixture, or add one of ignore"
            )
        vocals, others = (tuple(map(StemFile, kinds[kind])) for kind in ("vocals", "others"))
        return vocals, others, StemFile(mixtures[0]) if mixtures else None


STEMS = Patterns(vocals=("*vocal*", "*vox*", "*voice*", "*singer*"))
PAIRS = Patterns(vocals=("vocals.*", "vocal.*", "*/vocals.*", "*_vocals.*", "*_vocal.*"))


def read_patterns(path: Path, default: Patterns) -> Patterns:
    """The patterns of a TOML file, over the defaults. UserError naming file and field."""
    try:
        fields = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a TOML file of patterns is expected") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from None
    known = {field.name: getattr(default, field.name) for field in dataclasses.fields(Patterns)}
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"{path}: {name}: unknown; one of {', '.join(known)} is expected")
        if isinstance(known[name], bool):
            if not isinstance(value, bool):
                raise UserError(f"{path}: {name} is {value!r}; true or false is expected")
        elif not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise UserError(f"{path}: {name} is {value!r}; a list of patterns is expected")
        known[name] = tuple(value) if isinstance(value, list) else value
    return Patterns(**known)


def _matches(path: Path, folder: Path, patterns: Sequence[str]) -> bool:
    below = path.relative_to(folder).as_posix().lower()
    return any(
        fnmatch.fnmatchcase(text, pattern.lower())
        for pattern in patterns
        for text in (below, path.name.lower())
    )
