# The body of pretrain.sh and finetune.sh, which source it inside a Slurm job: source job.sh pretrain|finetune [OPTION ...]
#
# One task runs per GPU of a node, or as many as --ntasks-per-node or SPE_TASKS_PER_NODE say. With a range of nodes
# (--nodes=1-4) a job that has lost one goes on with those that are left, on as many ranks as they have. Slurm holds
# the number of tasks that it has given a job once, so leave --ntasks and --ntasks-per-node out then.
#
# Variables read at submission:
#   SPE_PYTHON     the interpreter; else that of the active virtual environment, else .venv/bin/python of the checkout,
#                  else that of the active conda environment
#   SPE_HOME       the checkout, where the job is submitted from elsewhere; without a checkout the interpreter's
#                  installed spe_dist is used
#   SPE_TASKS_PER_NODE  tasks of each node where nothing else says how many; else one per GPU, or one
#   SPE_CONTAINER  an Apptainer or Singularity image (slurm/spe.def): everything runs in it, with SPE_PYTHON or its python3
#   PREFLIGHT      0 leaves out `spe doctor --preflight`, which else runs in the job's tasks before each start: some 20 s,
#                  and the job ends where it finds that a run would not work
#   SPE_CONTAINER_OPTIONS  options of `apptainer exec`, such as "--bind /shared"; --nv is added where there are GPUs
#
# Without --output the run's folder is runs/JOBNAME-JOBID under the folder of submission; nodes must share it. In a job
# array %a in the options is the index: --seed %a --output runs/seed-%a. At the time limit (120 s before it), at
# preemption and at `scontrol requeue` all ranks save at the end of a micro-batch; the job goes back into the queue and
# continues from there, in the same folder and the same log. `scancel` saves and ends it. A file OUTPUT/STOP saves and
# ends the job with status 75: submit it again to go on.
# shellcheck shell=bash
set -euo pipefail

readonly STOPPED=75 UNSTABLE=3 # exit statuses: stopped and saved; numbers that are not finite (spe_dist/cli/exits.py)
program=$1
shift

say() { echo "[slurm/$program.sh] $*"; }
die() {
    echo "error: $*" >&2
    exit 2
}

# An array's job id alone means all its jobs to scontrol.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

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

# scontrol, asked again for a minute where Slurm's controller does not answer.
ask_slurm() {
    local tries
    for tries in 1 2 3 4 5 6; do
        if ((tries > 1)); then sleep 10; fi
        if scontrol "$@"; then return; fi
    done
    return 1
}

# A field of the job's record; empty where Slurm does not say.
job_field() { { ask_slurm show job "$job" --oneliner || true; } | tr ' ' '\n' | sed -n "s/^$1=//p" | sed -n 1p; }

# The checkout that this file belongs to; nothing where job.sh lies without one.
find_home() {
    local folder
    folder=$(dirname "${BASH_SOURCE[0]}")/..
    if [[ -n ${SPE_HOME:-} && ! -f $SPE_HOME/spe_dist/pretrain.py ]]; then
        die "SPE_HOME=$SPE_HOME holds no spe_dist/pretrain.py; set it to the checkout"
    fi
    if [[ -n ${SPE_HOME:-} ]]; then folder=$SPE_HOME; fi
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
    die "no Python: run 'make install' in ${home:-the checkout}, activate an environment before sbatch, or set" \
        "SPE_PYTHON=/path/to/python"
}

# Sets python, the command that runs the interpreter, here or in the container.
choose_python() {
    local path command options
    if [[ -z ${SPE_CONTAINER:-} ]]; then
        path=$(find_python)
        python=("$path")
        export PATH="${path%/*}:$PATH" # ninja and the environment's other commands
        if [[ -n $home ]]; then export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}"; fi
        return
    fi
    [[ -e $SPE_CONTAINER ]] || die "SPE_CONTAINER=$SPE_CONTAINER does not exist on $(hostname); build it from slurm/spe.def"
    command=$(command -v apptainer || command -v singularity) \
        || die "SPE_CONTAINER is set and there is no apptainer on $(hostname); load its module"
    read -ra options <<<"${SPE_CONTAINER_OPTIONS:-}"
    if (($(count_gpus) > 0)); then options+=(--nv); fi
    # An empty array counts as unset before bash 4.4.
    python=("$command" exec ${options[@]+"${options[@]}"} "$SPE_CONTAINER" "${SPE_PYTHON:-python3}")
}

# The value of --NAME among the program's options (the last one counts), empty where it is not given.
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

# GPUs of the job on this node. Not every Slurm says how many; their list is in SLURM_JOB_GPUS then.
count_gpus() {
    local found=${SLURM_GPUS_ON_NODE:-} commas=${SLURM_JOB_GPUS:-}
    if [[ -z $found && -n $commas ]]; then
        commas=${commas//[^,]/}
        found=$((${#commas} + 1))
    fi
    found=${found##*:}
    if [[ $found =~ ^[0-9]+$ ]]; then echo "$found"; else echo 0; fi
}

# One task per GPU unless a number of tasks is given. Sets srun_options, tasks_per_node, nodes, gpus.
plan_tasks() {
    local cpus=${SLURM_CPUS_ON_NODE:-1}
    gpus=$(count_gpus)
    nodes=${SLURM_JOB_NUM_NODES:-1}
    # Tasks of a job that was submitted with --export would else have none of the variables that are set here.
    srun_options=(--kill-on-bad-exit=1 --export=ALL)
    if [[ ! ${SPE_TASKS_PER_NODE:-1} =~ ^[1-9][0-9]*$ ]]; then
        die "SPE_TASKS_PER_NODE=$SPE_TASKS_PER_NODE is no positive number"
    fi
    if [[ -n ${SLURM_NTASKS:-} ]]; then
        tasks_per_node=$(((SLURM_NTASKS + nodes - 1) / nodes))
        srun_options+=(--ntasks="$SLURM_NTASKS")
    else
        if [[ -n ${SLURM_GPUS:-} ]] && ((${SLURM_GPUS##*:} != gpus * nodes)); then
            die "--gpus=$SLURM_GPUS is spread unevenly over $nodes nodes; ask with --gpus-per-node"
        fi
        tasks_per_node=${SPE_TASKS_PER_NODE:-$((gpus > 0 ? gpus : 1))}
        srun_options+=(--ntasks=$((nodes * tasks_per_node)) --ntasks-per-node="$tasks_per_node")
        if ((tasks_per_node > cpus)); then
            srun_options+=(--overcommit)
            say "warning: $tasks_per_node tasks a node share $cpus CPU(s); ask with --cpus-per-gpu"
        fi
    fi
    if ((gpus > tasks_per_node)); then
        say "warning: $((gpus - tasks_per_node)) of $gpus GPUs a node stay idle; leave out --ntasks and SPE_TASKS_PER_NODE to use all"
    fi
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then # srun does not take it from sbatch by itself
        srun_options+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
    fi
    cpus_per_task=${SLURM_CPUS_PER_TASK:-$((cpus / tasks_per_node > 0 ? cpus / tasks_per_node : 1))}
}

# A batch that does not divide by the ranks, as after the loss of a node, is trained on the most ranks by which it does.
fit_tasks() {
    local settings batch micro n t best=0 best_nodes=0 best_tasks=0
    [[ $program == pretrain ]] || return 0
    # Wrong options are reported by the training itself.
    settings=$("${python[@]}" -m "spe_dist.$program" "${arguments[@]}" --print_config 2>/dev/null) || return 0
    batch=$(sed -nE 's/^ *global_batch_sentences: *([0-9]+).*/\1/p' <<<"$settings")
    micro=$(sed -nE 's/^ *micro_batch_sentences: *([0-9]+).*/\1/p' <<<"$settings")
    if ((${batch:-0} == 0)); then return 0; fi
    if ((${micro:-0} == 0)); then micro=1; fi
    for ((n = 1; n <= nodes; n++)); do
        for ((t = 1; t <= tasks_per_node; t++)); do
            if ((batch % (n * t * micro) == 0 && n * t > best)); then best=$((n * t)) best_nodes=$n best_tasks=$t; fi
        done
    done
    if ((best == 0 || best == nodes * tasks_per_node)); then return 0; fi
    say "warning: global_batch_sentences=$batch does not divide by $((nodes * tasks_per_node)) ranks (micro-batches of" \
        "$micro): training on $best, $best_tasks on each of $best_nodes of $nodes node(s); the rest stays idle"
    nodes=$best_nodes tasks_per_node=$best_tasks
    srun_options+=(--nodes="$nodes" --relative=0 --ntasks="$best" --ntasks-per-node="$tasks_per_node")
    if [[ -n ${SLURM_GPUS:-} ]]; then # srun would take the whole job's for this step, which has fewer nodes
        unset SLURM_GPUS
        srun_options+=(--gpus-per-node="$gpus")
    fi
}

home=$(find_home)
choose_python
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 # no module of the folder of submission stands in for one of ours
plan_tasks
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus_per_task}

# The batch shell runs on the job's first node, where rank 0 listens: a port that is free here, held until this shell ends
# so that another job on the node gets another one. (head would leave a long list of nodes unread, which fails the pipe.)
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
[[ -n $MASTER_ADDR ]] || die "scontrol show hostnames '$SLURM_JOB_NODELIST' gives no host"
if command -v getent >/dev/null && ! getent hosts "$MASTER_ADDR" >/dev/null; then # Slurm's name of a node may be its own
    address=$(scontrol show node "$MASTER_ADDR" --oneliner | tr ' ' '\n' | sed -n 's/^NodeAddr=//p' | sed -n 1p)
    MASTER_ADDR=${address:-$MASTER_ADDR}
fi
coproc PORT_HOLDER { exec "${python[@]}" -m spe_dist.distributed.ports --hold; }
read -r MASTER_PORT <&"${PORT_HOLDER[0]}" || die "no free port on $(hostname), or ${python[*]} cannot run spe_dist (see above)"
export MASTER_ADDR MASTER_PORT

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then set -- "${@//%a/$SLURM_ARRAY_TASK_ID}"; fi
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

fit_tasks
say "job $SLURM_JOB_ID, start $((restarts + 1)), $(date '+%F %T'): ${SLURM_JOB_NUM_NODES:-1} node(s)" \
    "$SLURM_JOB_NODELIST, $tasks_per_node task(s) a node, $cpus_per_task CPU(s) a task"
say "ranks meet at $MASTER_ADDR:$MASTER_PORT; ${python[*]}${home:+ in $home}; output $output"

# What a start has saved last; nothing before its first checkpoint.
saved() { cat "$output/checkpoints/latest" 2>/dev/null || true; }
saved_before=$(saved)

# Runs Python on all tasks, as a step of the job that signals reach; sets status.
status=143
run_step() {
    if [[ -n $stop_signal ]]; then return; fi
    srun "${srun_options[@]}" "${python[@]}" "$@" &
    step=$!
    if [[ -n $stop_signal ]]; then kill -USR1 "$step" 2>/dev/null || true; fi # it came before `step` was known
    # `wait` returns early at a trapped signal, with a status that is not the step's.
    while kill -0 "$step" 2>/dev/null; do
        wait "$step" && status=0 || status=$?
    done
    wait "$step" && last=0 || last=$?
    if ((last != 127)); then status=$last; fi # 127: the loop has collected the status already
    step=''
}

if [[ ${PREFLIGHT:-1} != 0 ]]; then # also after a requeue: the nodes may be others
    run_step -m spe_dist doctor --preflight --output "$output"
    if [[ -z $stop_signal ]] && ((status != 0)); then
        say "preflight ended with status $status, nothing was started; PREFLIGHT=0 leaves it out"
        exit "$status"
    fi
    status=143
fi
run_step -m "spe_dist.$program" "${arguments[@]}"

# Preemption with a grace time sends TERM to the steps alone: only Slurm's record of the job tells.
preempted=$(job_field PreemptTime)
if [[ -z $stop_signal && -n $preempted && $preempted != None ]]; then stop_signal=preemption; fi
if [[ -z $stop_signal ]]; then
    say "step ended with status $status"
    if ((status == UNSTABLE)); then say "training became unstable: $output/failures.jsonl has the step and its sentences"; fi
    if ((status == STOPPED)); then say "stopped before its end and saved; submit it again with --output $output"; fi
    exit "$status"
fi
# A job that Slurm is requeueing or cancelling is no longer RUNNING: the rest is its own doing.
state=$(job_field JobState)
if [[ -n $state && $state != RUNNING ]]; then
    say "stopped by $stop_signal (status $status); Slurm has the job as $state"
    exit "$status"
fi
if ((status == 0)); then
    say "finished before $stop_signal could stop it"
    exit 0
fi
# srun may also end ranks by TERM that are still leaving when rank 0 has left with 75.
progress=''
if [[ $(saved) != "$saved_before" ]]; then progress=yes; fi
if ((status != STOPPED)) && ! { [[ $progress || $preempted == *[0-9]* ]] && ((status == 138 || status == 143)); }; then
    say "status $status after $stop_signal: not requeued. 138 or 143 mean that the ranks had not begun to train;" \
        "is the time limit ($(job_field TimeLimit)) too short?"
    exit "$status"
fi
if [[ $stop_signal == USR1 && -z $progress ]]; then # one such start may have been slow by accident
    in_vain=$output/.start_without_a_checkpoint
    if [[ $(cat "$in_vain" 2>/dev/null || true) == "$job $((restarts - 1))" ]]; then
        rm -f "$in_vain"
        say "neither this start nor the one before came to a new checkpoint: not requeued;" \
            "is the time limit ($(job_field TimeLimit)) too short?"
        exit "$STOPPED"
    fi
    echo "$job $restarts" >"$in_vain" || true
fi
say "saved after $stop_signal; back into the queue"
if ! scontrol requeue "$job"; then
    say "Slurm refuses to requeue the job; submit it again with --resume auto --output $output"
    exit "$STOPPED"
fi
