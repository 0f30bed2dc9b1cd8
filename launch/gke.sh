#!/usr/bin/env bash
# Trains on a Cloud TPU slice of a GKE cluster, by xpk: one process for each TPU host, joined by
# --multihost.
#
#   CLUSTER=my-cluster launch/gke.sh v5litepod-16 diff_dmx_rt_musdb
#
# Everything after the config goes to train.py, such as --train.micro-batches 2 for v5litepod-8.
#
# Needs xpk, gcloud and docker, a cluster made with `xpk cluster create --tpu-type=...`, and a
# bucket that its workloads mount at /gcs (`xpk storage attach`, by gcsfuse) for songs, checkpoints
# and compiled programs. Checkpoints are folders that are renamed when whole: give the bucket a
# hierarchical namespace, or mount it with gcsfuse's rename-dir-limit above the number of files in a
# checkpoint (it is 0 by default, and every save fails). With --multihost train.py takes no gs://.
set -euo pipefail
cd "$(dirname "$0")/.."

tpu=${1:?TPU type, such as v5litepod-16 or v5litepod-256}
config=${2:?config, such as diff_dmx_rt_musdb}
: "${CLUSTER:?the cluster}"
shift 2

train=(python train.py "$config" --workdir "/gcs/runs/$config" --data.source /gcs/songs --multihost "$@")

# The whole repository goes into the image; xpk restarts the workload when a host is taken away, and
# train.py then goes on from the newest whole checkpoint. It replaces the shell, to get the signals.
exec xpk workload create \
    --cluster "$CLUSTER" \
    --workload "diffsep-${config//_/-}" \
    --tpu-type "$tpu" \
    --base-docker-image python:3.12 \
    --script-dir . \
    --max-restarts 100 \
    --env JAX_COMPILATION_CACHE_DIR=/gcs/compiled \
    --command "pip install -e '.[train,tpu]' && exec$(printf ' %q' "${train[@]}")"
