#!/bin/bash
# simulate array -> join -> training chain -> evaluation -> figures, by dependencies. Run it from the folder that holds
# data/ and runs/, inside the environment:    bash slurm/pipeline.sh
# Site-specific values, as on a bwForCluster. Partition and account go into SBATCH_PARTITION and SBATCH_ACCOUNT, which
# sbatch reads by itself. What is simulated and trained stands in simulate_*.yaml and train_*.yaml, which also serve
# notebook 03; the default is the shipped network `baseline`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export DATA=${DATA:-data/raw/train.h5}            # dataset file
export NAME=${NAME:-d48_l2_hier}                  # of the run
export SIMULATE_PARAMETERS=${SIMULATE_PARAMETERS:-$here/simulate_baseline.yaml}
export EVENTS=${EVENTS:-}                         # further flags of microlens simulate
export PARAMETERS=${PARAMETERS:-$here/train_baseline.yaml}
export TRAIN=${TRAIN:-}                           # further flags of microlens train
export WALL_MINUTES=${WALL_MINUTES:-230}          # training stops with a good checkpoint before the time limit
export LINKS=${LINKS:-5}                          # at most so many further training jobs in the chain
export PROCESSES=${PROCESSES:-1}                  # torchrun processes a node: one a GPU
export LOCAL=${LOCAL-${TMPDIR:-}}                 # node-local folder for the packed data; empty: the data folder
TASKS=${TASKS:-8}                                 # simulation jobs
NODES=${NODES:-1} CPUS=${CPUS:-4} GPUS=${GPUS-1}  # training nodes, CPUs a task, GPUs a node ('' = none)
SIMULATE_TIME=${SIMULATE_TIME:-02:00:00}          # time limits of the jobs
TRAIN_TIME=${TRAIN_TIME:-04:00:00}

export SLURM_FOLDER=$here
export GPU_FLAG=${GPUS:+--gpus-per-node=$GPUS}
export NODE_FLAGS="--nodes=$NODES --cpus-per-task=$CPUS --time=$TRAIN_TIME"
simulated=$(sbatch --parsable --array="0-$((TASKS - 1))" --cpus-per-task="$CPUS" --time="$SIMULATE_TIME" \
    "$here/simulate.sbatch")
joined=$(sbatch --parsable --cpus-per-task="$CPUS" --dependency="afterok:$simulated" "$here/join.sbatch")
# shellcheck disable=SC2086  # lists of flags
sbatch --parsable $NODE_FLAGS $GPU_FLAG --dependency="afterok:$joined" "$here/train.sbatch"
