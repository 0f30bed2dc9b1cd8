#!/usr/bin/env bash
# Packs what launch/gpu_check.sh needs on a machine without a network:
#
#   launch/pack.sh PACK MEGABYTES SONGS [SONGS ...]
#
# wheels for Python 3.12 on Linux, and songs as Ogg Vorbis, as many as fit: an equal share of each
# folder that `python -m data_pipelines.build sung` or `music` wrote. Needs ffmpeg.
set -euo pipefail
pack=$1 megabytes=$2
shift 2
python=${PYTHON:-python3}
platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 28 27 24 17)
# shellcheck disable=SC2086
$python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    $platforms --platform manylinux2014_x86_64 --dest "$pack/wheels" \
    array-record cffi docstring-parser grain msgspec platformdirs portpicker pycparser soundfile soxr \
    tensorboardX typeguard tyro
share=$((megabytes * 1000000 / $#)) number=0
for folder in "$@"; do
    songs="$pack/songs-$number"
    number=$((number + 1))
    for split in validation train; do
        for song in "$folder/$split"/*/; do
            [ "$(find "$songs" -type f -printf '%s\n' 2>/dev/null | awk '{n += $1} END {print n + 0}')" -lt $share ] || break
            to="$songs/$split/$(basename "$song")"
            mkdir -p "$to"
            for stem in vocals accompaniment; do
                ffmpeg -loglevel error -y -i "$song/$stem.wav" -codec:a libvorbis -q:a 3 "$to/$stem.ogg"
            done
        done
        # Six songs are enough to validate on.
        [ $split = train ] || find "$songs/validation" -mindepth 1 -maxdepth 1 | sort | tail -n +7 | xargs -r rm -r
    done
done
du -sh "$pack"/*
