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
#          --deepspeed ds_configs/zero2.json --preset paper --shards /shared/shards --output /shared/runs/paper
#   sbatch --nodes=4 --ntasks-per-node=2 --cpus-per-task=16 slurm/pretrain.sh --shards /shared/shards     CPU nodes
#
# Nodes, GPUs, CPUs, memory, time, partition, account: sbatch's own options, before the script. One task runs per GPU of
# a node, or as many as --ntasks-per-node says. What follows the script goes to spe_dist/pretrain.py.
#
# Variables read at submission:
#   SPE_PYTHON  the interpreter; else that of the active virtual environment, else .venv/bin/python of the checkout,
#               else that of the active conda environment
#   SPE_HOME    the checkout, where the job is submitted from elsewhere
#
# Without --output the run's folder is runs/JOBNAME-JOBID under the folder of submission; nodes must share it. At the time
# limit (120 s before it), at preemption and at `scontrol requeue` all ranks save at the end of a micro-batch; the job
# goes back into the queue and continues from there, in the same folder and the same log. `scancel` saves and ends it.
# The job's exit status is that of spe_dist/pretrain.py: 0 finished, 75 stopped by OUTPUT/STOP and saved, else failed.
set -euo pipefail

readonly STOPPED=75 # status of a run that was asked to stop and has saved (spe_dist/cli/exits.py)

say() { echo "[slurm/pretrain.sh] $*"; }
die() {
    echo "error: $*" >&2
    exit 2
}

[[ -n ${SLURM_JOB_ID:-} ]] || die "not inside a Slurm job; submit it: sbatch slurm/pretrain.sh"

# Asked to stop: USR1 comes from --signal, TERM from Slurm itself (its steps have it already then). Ranks take USR1 as a
# request; TERM sent to srun would kill them.
step='' stop_signal=''
# shellcheck disable=SC2317  # called by the traps
ask_to_stop() {
    stop_signal=$1
    say "received $1: asking all ranks to save and stop"
    if [[ -n $step ]]; then kill -USR1 "$step" 2>/dev/null || true; fi
}
trap 'ask_to_stop USR1' USR1
trap 'ask_to_stop TERM' TERM

job_field() { scontrol show job "$SLURM_JOB_ID" --oneliner | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1; }

# Slurm runs a copy of this file from its spool folder, so the checkout is not where $0 is.
find_home() {
    local command folder
    command=$(scontrol show job "$SLURM_JOB_ID" --oneliner | sed -nE 's|.* Command=(.*/slurm/pretrain\.sh).*|\1|p')
    for folder in "${SPE_HOME:-}" "${SLURM_SUBMIT_DIR:-}" "${command%/slurm/pretrain.sh}"; do
        if [[ -n $folder && -f $folder/spe_dist/pretrain.py ]]; then
            (cd "$folder" && pwd)
            return
        elif [[ -n ${SPE_HOME:-} ]]; then
            die "SPE_HOME=$SPE_HOME holds no spe_dist/pretrain.py; set it to the checkout"
        fi
    done
    die "no spe_dist/pretrain.py in ${SLURM_SUBMIT_DIR:-the folder of submission}; submit from the checkout or set SPE_HOME"
}

find_python() {
    local candidate
    if [[ -n ${SPE_PYTHON:-} ]]; then
        command -v "$SPE_PYTHON" || die "SPE_PYTHON=$SPE_PYTHON cannot be run on $(hostname)"
        return
    fi
    for candidate in "${VIRTUAL_ENV:-}" "$home/.venv" "${CONDA_PREFIX:-}"; do
        if [[ -n $candidate && -x $candidate/bin/python ]]; then
            echo "$candidate/bin/python"
            return
        fi
    done
    die "no Python: run 'make install' in $home, activate an environment before sbatch, or set SPE_PYTHON=/path/to/python"
}

# The value of --NAME among pretrain.py's arguments (the last one counts), empty where it is not given.
argument() {
    local name=$1 value='' take=0 word
    shift
    for word in "$@"; do
        if ((take)); then
            value=$word take=0
        elif [[ $word == "--$name" ]]; then
            take=1
        elif [[ $word == "--$name="* ]]; then
            value=${word#*=}
        fi
    done
    echo "$value"
}

# One task per GPU unless sbatch was told a number of tasks. Sets srun_options, tasks_per_node.
plan_tasks() {
    local gpus=${SLURM_GPUS_ON_NODE:-0} nodes=${SLURM_JOB_NUM_NODES:-1} cpus=${SLURM_CPUS_ON_NODE:-1}
    srun_options=(--kill-on-bad-exit=1)
    if [[ -n ${SLURM_NTASKS:-} ]]; then
        tasks_per_node=$(((SLURM_NTASKS + nodes - 1) / nodes))
        srun_options+=(--ntasks="$SLURM_NTASKS")
    else
        if [[ -n ${SLURM_GPUS:-} ]] && ((${SLURM_GPUS##*:} != gpus * nodes)); then
            die "--gpus=$SLURM_GPUS is spread unevenly over $nodes nodes; ask with --gpus-per-node"
        fi
        tasks_per_node=$((gpus > 0 ? gpus : 1))
        srun_options+=(--ntasks=$((nodes * tasks_per_node)) --ntasks-per-node="$tasks_per_node")
        if ((tasks_per_node > cpus)); then
            srun_options+=(--overcommit)
            say "warning: $tasks_per_node tasks a node share $cpus CPU(s); ask with --cpus-per-gpu"
        fi
    fi
    if ((gpus > tasks_per_node)); then
        say "warning: $((gpus - tasks_per_node)) of $gpus GPUs a node stay idle; leave out --ntasks to use all"
    fi
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then # srun does not take it from sbatch by itself
        srun_options+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
    fi
    cpus_per_task=${SLURM_CPUS_PER_TASK:-$((cpus / tasks_per_node > 0 ? cpus / tasks_per_node : 1))}
}

home=$(find_home)
python=$(find_python)
export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PATH="${python%/*}:$PATH" # ninja and the environment's other commands
plan_tasks
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus_per_task}

# The batch shell runs on the job's first node, where rank 0 listens: a port that is free here, held until this shell ends
# so that another job on the node gets another one.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
[[ -n $MASTER_ADDR ]] || die "scontrol show hostnames '$SLURM_JOB_NODELIST' gives no host"
coproc PORT_HOLDER { exec "$python" -m spe_dist.distributed.ports --hold; }
read -r MASTER_PORT <&"${PORT_HOLDER[0]}" || die "no free port on $(hostname), or $python cannot run spe_dist (see above)"
export MASTER_ADDR MASTER_PORT

restarts=${SLURM_RESTART_COUNT:-0}
output=$(argument output "$@")
settings=$(argument config "$@")
arguments=(--resume auto)
if [[ -z $output ]]; then
    if [[ -n $settings && -f $settings ]]; then # `  output: "runs/a"  # here` gives runs/a
        output=$(sed -nE "s/^[[:space:]]*output:[[:space:]]*[\"']?([^\"'#]*[^\"'#[:space:]]).*/\1/p" "$settings" | tail -n 1)
    fi
    if [[ -z $output ]]; then
        output=runs/${SLURM_JOB_NAME//[^A-Za-z0-9._-]/_}-$SLURM_JOB_ID
        arguments+=(--output "$output")
    fi
fi
arguments+=("$@")
if ((restarts > 0)) && [[ -e $output/checkpoints/latest ]]; then
    arguments+=(--resume auto) # whatever --resume the first start was given
fi

say "job $SLURM_JOB_ID, start $((restarts + 1)), $(date '+%F %T'): ${SLURM_JOB_NUM_NODES:-1} node(s)" \
    "$SLURM_JOB_NODELIST, $tasks_per_node task(s) a node, $cpus_per_task CPU(s) a task"
say "ranks meet at $MASTER_ADDR:$MASTER_PORT; $python in $home; output $output"

if [[ -z $stop_signal ]]; then
    srun "${srun_options[@]}" "$python" "$home/spe_dist/pretrain.py" "${arguments[@]}" &
    step=$!
fi
# `wait` returns early at a trapped signal, with a status that is not the step's.
status=143
while [[ -n $step ]] && kill -0 "$step" 2>/dev/null; do
    wait "$step" && status=0 || status=$?
done
if [[ -n $step ]]; then
    wait "$step" && last=0 || last=$?
    if ((last != 127)); then status=$last; fi # 127: the loop has collected the status already
fi

# Preemption with a grace time sends TERM to the steps alone: only Slurm's record of the job tells.
preempted=$(job_field PreemptTime)
if [[ -z $stop_signal && -n $preempted && $preempted != None ]]; then stop_signal=preemption; fi
if [[ -z $stop_signal ]]; then
    if ((status == STOPPED)); then
        say "stopped as asked and saved; submit it again to continue, with --output $output"
    else
        say "step ended with status $status"
    fi
    exit "$status"
fi
# A job that Slurm is requeueing or cancelling is no longer RUNNING: the rest is its own doing.
state=$(job_field JobState)
if [[ $state != RUNNING ]]; then
    say "stopped by $stop_signal (status $status); Slurm has the job as $state"
    exit "$status"
fi
if ((status == 0)); then
    say "finished in spite of $stop_signal; not requeued"
    exit 0
fi
if ((status != STOPPED)) && ! { [[ -n $preempted && $preempted != None ]] && ((status == 138 || status == 143)); }; then
    say "status $status after $stop_signal: not requeued. 138 or 143 mean that the ranks had not begun to train;" \
        "is the time limit ($(job_field TimeLimit)) too short?"
    exit "$status"
fi
say "saved after $stop_signal; back into the queue"
if ! scontrol requeue "$SLURM_JOB_ID"; then
    say "Slurm refuses to requeue the job; submit it again with --resume auto --output $output"
    exit 75
fi
