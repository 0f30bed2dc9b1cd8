#!/usr/bin/env bash
# Checks one GPU, then trains on it until the time is up:
#
#   launch/gpu_check.sh PACK OUT SECONDS [CONFIG [options of train.py]]
#
# PACK is what launch/pack.sh wrote: the machine needs Python 3.12 with jax, flax, optax, orbax and
# scipy, and no network. OUT gets checks.json, the training's log and, every minute, the weights so
# far in float16, in parts of 15 MiB: cat OUT/model.safetensors.* > model.safetensors
set -uo pipefail
cd "$(dirname "$0")/.."
pack=$1 out=$2 end=$((SECONDS + $3)) config=${4:-large}
shift $(($# < 4 ? $# : 4))
python=${PYTHON:-python3}
work=$(mktemp -d)
mkdir -p "$out"

if [ -d "$pack/wheels" ]; then
    $python -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$pack"/wheels/*.whl || exit
    # The wheel of FFmpeg is too large to carry, and Ogg Vorbis is read without it.
    mkdir -p "$work/site/av"
    printf '%s\n' 'from av import container, stream' 'FFmpegError = AudioFrame = Packet = AudioStream = VideoStream = type("Absent", (Exception,), {})' > "$work/site/av/__init__.py"
    echo 'InputContainer = OutputContainer = object' > "$work/site/av/container.py"
    echo 'Disposition = object' > "$work/site/av/stream.py"
    export PYTHONPATH="$work/site"
fi
export JAX_COMPILATION_CACHE_DIR="$work/compiled"

export_weights() {
    JAX_PLATFORMS=cpu $python train.py "$config" --workdir "$work/run" --export-only --export-dtype float16 \
        && split --bytes 15M --numeric-suffixes "$work/run/model/model.safetensors" "$out/model.safetensors." \
        && cp "$work/run/model/config.json" "$out"
}

# At most half of the time, so that a check that hangs leaves some to train.
timeout $(((end - SECONDS) / 2)) $python -m launch.gpu_check --out "$out"

$python train.py "$config" --workdir "$work/run" --train.freeze generator --data.source "$pack"/songs-* \
    --data.cache-dir "$work/songs" --train.checkpoint-every 200 --train.validate-every 1000000 "$@" > "$out/train.log" 2>&1 &
training=$!
while kill -0 $training 2>/dev/null && [ $((end - SECONDS)) -gt 90 ]; do
    timeout 60 tail --pid=$training --follow /dev/null
    export_weights
done
kill -TERM $training 2>/dev/null
wait $training
export_weights
ls -l "$out"
