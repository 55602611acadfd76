#!/usr/bin/env bash
# A throw-away Slurm of two virtual nodes on this machine, for the tests beside it. Root on a Debian-like system.
#
#   local_slurm.sh start    install Slurm where it is missing, start the daemons, wait for idle nodes
#   local_slurm.sh stop     cancel all jobs and end the daemons that `start` started
#   local_slurm.sh conf     print the path that SLURM_CONF must have
#
# Both nodes (vn1, vn2) are slurmd processes on loopback with a port each; no systemd, cgroups or database. Their names go
# into /etc/hosts while it runs, since ranks meet at the first node's name. Every node claims 8 CPUs and 2 GPUs that do not
# exist. Partitions: main, and urgent, which preempts it by requeueing after a grace time.
# LOCAL_SLURM_DIR: config, key, state, logs. LOCAL_SLURM_PORT: first of four ports.
set -euo pipefail

DIR=${LOCAL_SLURM_DIR:-${TMPDIR:-/tmp}/spe-local-slurm}
PORT=${LOCAL_SLURM_PORT:-17400}
NODES=(vn1 vn2)
HOSTS_TAG='# spe local_slurm'
export SLURM_CONF=$DIR/slurm.conf

die() {
    echo "local_slurm.sh: $*" >&2
    exit 1
}

install_slurm() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null \
        && command -v sbatch >/dev/null && return
    command -v apt-get >/dev/null || die "no Slurm here and no apt-get to install it"
    local policy=/usr/sbin/policy-rc.d made=0
    if [[ ! -e $policy ]]; then # packages must not start daemons of their own
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=1
    fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge; } >"$DIR/apt.log" 2>&1 \
        || die "cannot install Slurm: $(tail -n 3 "$DIR/apt.log")"
    if ((made)); then rm -f $policy; fi
}

write_config() {
    local index node
    mkdir -p "$DIR"/{state,log,run,spool,dev}
    chmod 755 "$DIR" "$DIR/run"
    (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge.key")
    # slurmd probes cgroups at its start although nothing here uses them; naming a version skips that.
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$DIR/cgroup.conf"
    for index in 0 1; do [[ -c $DIR/dev/nvidia$index ]] || mknod "$DIR/dev/nvidia$index" c 1 3; done
    : >"$DIR/gres.conf"
    for node in "${NODES[@]}"; do
        echo "NodeName=$node Name=gpu File=$DIR/dev/nvidia[0-1]" >>"$DIR/gres.conf"
    done
    cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.sock
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdSpoolDir=$DIR/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
PropagateResourceLimitsExcept=MEMLOCK
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=20
KillWait=60
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
NodeName=vn1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=8 RealMemory=8000 Gres=gpu:2
NodeName=vn2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=8 RealMemory=8000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
CONF
}

# /etc/hosts may be a bind mount: rewritten in place, never renamed over.
remove_hosts() {
    local kept
    if grep -q "$HOSTS_TAG\$" /etc/hosts; then
        kept=$(grep -v "$HOSTS_TAG\$" /etc/hosts)
        printf '%s\n' "$kept" >/etc/hosts
    fi
}

start() {
    local node
    [[ $(id -u) == 0 ]] || die "must be root"
    stop
    mkdir -p "$DIR"
    install_slurm
    rm -rf "$DIR"/{state,spool,log}
    write_config
    for node in "${NODES[@]}"; do
        mkdir -p "$DIR/spool/$node"
        echo "127.0.0.1 $node $HOSTS_TAG" >>/etc/hosts
    done
    munged --key-file="$DIR/munge.key" --socket="$DIR/run/munge.sock" --pid-file="$DIR/run/munged.pid" \
        --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed" --num-threads=2 || die "munged does not start"
    slurmctld -f "$SLURM_CONF" </dev/null >"$DIR/log/start.log" 2>&1 || die "slurmctld: $(tail -n 3 "$DIR/log/start.log")"
    for node in "${NODES[@]}"; do
        slurmd -f "$SLURM_CONF" -N "$node" </dev/null >>"$DIR/log/start.log" 2>&1 \
            || die "slurmd $node: $(tail -n 3 "$DIR/log/start.log")"
    done
    for ((tries = 0; tries < 120; tries++)); do
        if (($(timeout 5 sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l) == ${#NODES[@]})); then return; fi
        sleep 0.5
    done
    die "the nodes did not become idle: $(tail -n 5 "$DIR/log/slurmctld.log")"
}

# Whether the process is alive and a daemon started with this folder's files (a zombie has no command line).
ours() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF "$DIR"; }

end() {
    local pid tries
    [[ -s $DIR/run/$1.pid ]] || return 0
    pid=$(tr -dc 0-9 <"$DIR/run/$1.pid")
    rm -f "$DIR/run/$1.pid"
    for ((tries = 0; tries < 50; tries++)); do
        ours "$pid" || return 0
        if ((tries == 0)); then kill -TERM "$pid" 2>/dev/null || true; fi
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop() {
    local node tries
    if [[ -s $DIR/run/slurmctld.pid ]]; then
        timeout 10 scancel --full --signal=KILL --user=root 2>/dev/null || true
        for ((tries = 0; tries < 20; tries++)); do
            [[ -n $(timeout 5 squeue -h 2>/dev/null) ]] || break
            sleep 0.5
        done
    fi
    for node in "${NODES[@]}"; do end "slurmd.$node"; done
    end slurmctld
    end munged
    remove_hosts
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    conf) echo "$SLURM_CONF" ;;
    *)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"
        exit 2
        ;;
esac
