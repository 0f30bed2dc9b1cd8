#!/usr/bin/env bash
# Trains on a Cloud TPU slice of a GKE cluster, by xpk: one process for each TPU host, found from
# the environment that GKE gives them.
#
#   CLUSTER=my-cluster BUCKET=gs://my-bucket launch/gke.sh v5litepod-16 diff_dmx_rt_musdb
#
# Needs xpk, gcloud and docker, a cluster made with `xpk cluster create --tpu-type=...`, and a
# bucket that the cluster mounts at /gcs (GCS FUSE) for songs, checkpoints and compiled programs.
set -euo pipefail
cd "$(dirname "$0")/.."

tpu=${1:?TPU type, such as v5litepod-16 or v5litepod-256}
config=${2:?config, such as diff_dmx_rt_musdb}
shift 2
: "${CLUSTER:?the cluster}"

# The whole repository goes into the image; xpk restarts the workload when a host is taken away, and
# train.py then goes on from the newest whole checkpoint.
xpk workload create \
    --cluster "$CLUSTER" \
    --workload "diffsep-${config//_/-}" \
    --tpu-type "$tpu" \
    --base-docker-image python:3.12 \
    --script-dir . \
    --max-restarts 100 \
    --env JAX_COMPILATION_CACHE_DIR=/gcs/compiled \
    --command "pip install -e '.[tpu,tensorboard]' && python train.py $config \
        --workdir /gcs/runs/$config --data.source /gcs/songs --data.cache-dir /tmp/songs $*"
