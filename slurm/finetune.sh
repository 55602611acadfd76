#!/usr/bin/env bash
#SBATCH --job-name=spe-finetune
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#
# Fine-tune a joint extraction model under Slurm, on any number of nodes. From the checkout:
#
#   sbatch --gpus-per-node=1 --cpus-per-gpu=8 slurm/finetune.sh --preset paper --start /shared/encoder \
#          --train train.json --dev dev.json --test test.json --output /shared/runs/conll04
#   sbatch --array=0-4 slurm/finetune.sh ... --seed %a --output /shared/runs/conll04-%a      five seeds, one job each
#
# Nodes, GPUs, CPUs, memory, time, partition, account: sbatch's own options, before the script. What follows the script
# goes to `spe finetune`. job.sh, beside this file, describes variables, the folder of the run, stopping and resuming.
set -euo pipefail

# Slurm runs a copy of this file from its spool folder, so job.sh is not beside $0: look beside the submitted file.
find_body() {
    local command folder
    command=$(scontrol show job "$SLURM_JOB_ID" --oneliner | sed -nE 's|.* Command=(.*)/finetune\.sh.*|\1|p' | sed -n 1p)
    for folder in "${SPE_HOME:+$SPE_HOME/slurm}" "$command" "${SLURM_SUBMIT_DIR:-}/slurm"; do
        if [[ -n $folder && -f $folder/job.sh ]]; then
            echo "$folder/job.sh"
            return
        fi
    done
    echo "error: job.sh is not beside slurm/finetune.sh; keep both in one folder, or set SPE_HOME to the checkout" >&2
    return 2
}

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: not inside a Slurm job; submit it: sbatch slurm/finetune.sh" >&2
    exit 2
fi
body=$(find_body) || exit 2
# shellcheck source=slurm/job.sh
source "$body" finetune "$@"
