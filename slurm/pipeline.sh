#!/bin/bash
# simulate array -> join -> training chain -> evaluation -> figures, by dependencies. Run it from the folder that holds data/ and
# runs/, inside the environment:    bash slurm/pipeline.sh
# Site-specific values. Partition and account go into SBATCH_PARTITION and SBATCH_ACCOUNT, which sbatch reads by itself.
set -euo pipefail
export EVENTS=${EVENTS:-"--n_flat 20000 --n_pspl 20000 --n_binary 20000 --binary_preset baseline --seed 1"}
export DATA=${DATA:-data/raw/train.h5}          # dataset file
export NAME=${NAME:-d64_l4_hier}                # of the run
export TRAIN=${TRAIN:-"--epochs 20"}            # flags of microlens train
export WALL_MINUTES=${WALL_MINUTES:-230}        # training stops with a good checkpoint after this long, before the time limit
export LINKS=${LINKS:-5}                        # at most so many training jobs in the chain
export PROCESSES=${PROCESSES:-1}                # torchrun processes a node: one a GPU
export LOCAL=${LOCAL-${TMPDIR:-}}               # node-local folder for the packed data; empty: the data folder
TASKS=${TASKS:-8} NODES=${NODES:-1} CPUS=${CPUS:-4} GPUS=${GPUS-1} # array tasks, training nodes, CPUs a task, GPUs a node ('' = none)

here=$(cd "$(dirname "$0")" && pwd)
export SLURM_FOLDER=$here GPU_FLAG=${GPUS:+--gpus-per-node=$GPUS} NODE_FLAGS="--nodes=$NODES --cpus-per-task=$CPUS"
simulated=$(sbatch --parsable --array="0-$((TASKS - 1))" --cpus-per-task="$CPUS" "$here/simulate.sbatch")
joined=$(sbatch --parsable --cpus-per-task="$CPUS" --dependency="afterok:$simulated" "$here/join.sbatch")
# shellcheck disable=SC2086  # lists of flags
sbatch --parsable $NODE_FLAGS $GPU_FLAG --dependency="afterok:$joined" "$here/train.sbatch"
