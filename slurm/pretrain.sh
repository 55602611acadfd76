#!/usr/bin/env bash
#SBATCH --job-name=spe-pretrain
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#
# Pre-train SPE under Slurm, on any number of nodes. From the checkout:
#
#   sbatch slurm/pretrain.sh                                                    the demo, one process
#   sbatch --nodes=2 --gpus-per-node=8 --cpus-per-gpu=12 slurm/pretrain.sh \
#          --deepspeed zero2 --preset paper --shards /shared/shards --output /shared/runs/paper
#   sbatch --nodes=4 --ntasks-per-node=2 --cpus-per-task=16 slurm/pretrain.sh --shards /shared/shards     CPU nodes
#
# Nodes, GPUs, CPUs, memory, time, partition, account: sbatch's own options, before the script. What follows the script
# goes to `spe pretrain`. job.sh, beside this file, describes variables, the folder of the run, stopping and resuming.
set -euo pipefail

# Slurm runs a copy of this file from its spool folder, so job.sh is not beside $0: look beside the submitted file.
find_body() {
    local command folder
    command=$(scontrol show job "$SLURM_JOB_ID" --oneliner | sed -nE 's|.* Command=(.*)/pretrain\.sh.*|\1|p' | sed -n 1p)
    for folder in "${SPE_HOME:+$SPE_HOME/slurm}" "$command" "${SLURM_SUBMIT_DIR:-}/slurm"; do
        if [[ -n $folder && -f $folder/job.sh ]]; then
            echo "$folder/job.sh"
            return
        fi
    done
    echo "error: job.sh is not beside slurm/pretrain.sh; keep both in one folder, or set SPE_HOME to the checkout" >&2
    return 2
}

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: not inside a Slurm job; submit it: sbatch slurm/pretrain.sh" >&2
    exit 2
fi
body=$(find_body) || exit 2
# shellcheck source=slurm/job.sh
source "$body" pretrain "$@"
