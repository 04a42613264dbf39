#!/bin/bash
# simulate array -> join -> training chain -> evaluation. Run from the folder that holds data/ and runs/, in the environment.
# Site-specific values (partition, account, GPU type) go into SBATCH_PARTITION, SBATCH_ACCOUNT and the like, which sbatch reads.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LINKS:=3}" # training jobs in the chain
last=$(sbatch --parsable "$here/simulate.sbatch")
last=$(sbatch --parsable --dependency="afterok:$last" "$here/join.sbatch")
relation=afterok
for _ in $(seq "$LINKS"); do
    last=$(sbatch --parsable --dependency="$relation:$last" "$here/train.sbatch")
    relation=afterany
done
sbatch --parsable --dependency="afterok:$last" "$here/evaluate.sbatch"
