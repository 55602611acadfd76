#!/usr/bin/env bash
# Renew constraints.txt: the newest versions within the bounds of pyproject.toml, from a fresh environment.
#   lock.sh [PYTHON]     default python3.11, the oldest supported, whose versions the newer ones take too
# Torch and its CUDA packages stay out: each machine has its own build.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${1:-python3.11}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" tools/setup_env.py "$scratch/venv" --python "$python" --torch "torch>=2.10,<3" --unpinned
{
    echo "# Versions that the project is tested with, for every supported Python. Made by \`make lock\`; do not edit."
    "$scratch/venv/bin/python" -m pip freeze --exclude-editable |
        grep -vE '^(torch|triton|nvidia[-_]|cuda[-_]|pip|setuptools|wheel)([^a-z]|$)' |
        grep -vE ' @ |^(nvidia|cuda)'
} >"$scratch/constraints.txt"
cp "$scratch/constraints.txt" constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) packages"
