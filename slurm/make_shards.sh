#!/usr/bin/env bash
#SBATCH --job-name=spe-make-shards
#SBATCH --output=slurm-%j.out
#
# Make shards on the nodes of a Slurm cluster. On a login node, from the checkout:
#
#   slurm/make_shards.sh --input /shared/text --output /shared/shards --tokenizer bert-base-cased
#   slurm/make_shards.sh --input ... --tasks 200 --processes 4 --slurm_partition cpu --slurm_sbatch account=nlp
#
# It submits one job array for each stage and returns; the last one writes the manifest. The same command shows the
# finished shards, and continues where a task was lost. `sbatch slurm/make_shards.sh ...` submits from a node, where the
# cluster allows that. All nodes must share the input, the output folder and the Python environment.
#
# Options: spe shards make --help-all. Variables, as for the training scripts: SPE_PYTHON, SPE_HOME (see job.sh).
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 2
}

# The checkout; nothing where this file lies without one. Slurm runs a copy of it from its spool folder.
find_home() {
    local folder
    folder=$(dirname "$0")/..
    if [[ -n ${SLURM_JOB_ID:-} ]]; then
        folder=$(scontrol show job "$SLURM_JOB_ID" --oneliner | sed -nE 's|.* Command=(.*)/slurm/make_shards\.sh.*|\1|p' | sed -n 1p)
    fi
    folder=${SPE_HOME:-$folder}
    if [[ -f $folder/spe_dist/pretrain.py ]]; then (cd "$folder" && pwd); fi
}

find_python() {
    local candidate
    if [[ -n ${SPE_PYTHON:-} ]]; then
        command -v "$SPE_PYTHON" || die "SPE_PYTHON=$SPE_PYTHON cannot be run on $(hostname)"
        return
    fi
    for candidate in "${VIRTUAL_ENV:-}" "${home:+$home/.venv}" "${CONDA_PREFIX:-}"; do
        if [[ -n $candidate && -x $candidate/bin/python ]]; then
            echo "$candidate/bin/python"
            return
        fi
    done
    die "no Python: run 'make install' in ${home:-the checkout}, activate an environment, or set SPE_PYTHON=/path/to/python"
}

home=$(find_home)
python=$(find_python)
if [[ -n $home ]]; then export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}"; fi
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
exec "$python" -m spe_dist shards make --executor slurm "$@"
