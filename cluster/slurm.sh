#!/bin/bash
# Runs a search on the GPU nodes of a Slurm cluster, from the project's folder. OUT must be on
# storage that all nodes see:
#
#     sbatch cluster/slurm.sh FILE OUT
#
#SBATCH --job-name=s2s-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
file=$1
out=$2

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
export RAY_USAGE_STATS_ENABLED=0
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not get it from sbatch

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000)) # below the ports that the system assigns
address=$ip:$port
node=(ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="/tmp/ray-$SLURM_JOB_ID")

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
srun --nodes=1 --ntasks=1 --nodelist="$head" \
  "${node[@]}" --head --node-ip-address="$ip" --port="$port" --dashboard-host=127.0.0.1 &
for _ in {1..60}; do
  ray health-check --address "$address" && break
  sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" "${node[@]}" --address="$address" &
fi

if [[ -d $out ]]; then # this job was requeued
  python run_search.py resume "$out" --address "$address" &
else
  python run_search.py search "$file" --address "$address" --out "$out" &
fi
search=$!

# Slurm sends SIGTERM two minutes before the time limit. The search writes its tables, and the job
# goes back into the queue.
requeue() {
  kill -INT "$search"
  wait "$search" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit
}
trap requeue TERM
wait "$search"
