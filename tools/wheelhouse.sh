#!/usr/bin/env bash
# Collect what a bare GPU machine without a network lacks for tools/gpu_check.py, in one folder to carry there:
#   wheelhouse.sh DIR [--python 3.12]     run in the environment of `make install`; the Python is the machine's
# DIR/wheels has the packages with the versions of constraints.txt, deepspeed built from its source, DIR/data shards of
# 20,000 made-up sentences, labelled sentences and a small encoder. The machine has torch, transformers and pytest.
set -euo pipefail

usage() { sed -n '2,5s/^# //p' "$0"; exit "${1:-0}"; }

python_version=3.12
dir=
while (($#)); do
    case $1 in
        -h | --help) usage ;;
        --python) python_version=${2:?"--python needs a version, such as 3.12"}; shift 2 ;;
        -*) echo "error: unknown option $1" >&2; usage 2 ;;
        *) dir=$1; shift ;;
    esac
done
[[ -n $dir ]] || usage 2

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$dir/wheels"
dir=$(cd "$dir" && pwd)
cd "$root"

# The extra `train` and what it needs beyond torch, transformers and pytest, which bring the rest.
missing=(annotated-types braceexpand hjson psutil py-cpuinfo msgpack einops ninja pydantic pydantic_core pytest-timeout
    typing_extensions typing-inspection webdataset zstandard)

pinned() {  # the requirement that constraints.txt has for a package
    python - "$1" <<'PYTHON'
import re, sys
name = lambda text: re.sub(r"[-_.]+", "-", text).lower()
for line in open("constraints.txt", encoding="utf-8"):
    if not line.startswith("#") and name(line.partition("==")[0]) == name(sys.argv[1]):
        print(line.strip())
        break
else:
    sys.exit(f"error: constraints.txt has no {sys.argv[1]}; `make lock` renews it")
PYTHON
}

requirements=()
for package in "${missing[@]}"; do requirements+=("$(pinned "$package")"); done

echo "wheels for Python $python_version: ${requirements[*]}"
platforms=()
for tag in manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux_2_12_x86_64 manylinux2010_x86_64 \
    manylinux_2_5_x86_64 manylinux1_x86_64; do platforms+=(--platform "$tag"); done
python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$python_version" \
    --abi "cp${python_version//./}" --abi abi3 --abi none "${platforms[@]}" --dest "$dir/wheels" "${requirements[@]}"

# Source only: its kernels are compiled where they are used, so that the wheel is one for all machines.
deepspeed=$(pinned deepspeed)
if ! compgen -G "$dir/wheels/deepspeed-${deepspeed#*==}-*" >/dev/null; then
    echo "wheel of $deepspeed, from its source"
    DS_BUILD_OPS=0 DS_ACCELERATOR=cpu DS_BUILD_STRING=" " \
        python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$dir/wheels" "$deepspeed"
fi

echo "data of the demo's world"
python -m spe_dist.benchmark.gpu_check.data "$dir/data"

du -sh "$dir"/* && du -sh "$dir"
cat <<TEXT
on the machine, in the checkout, with this folder:
  python3 -m pip install --quiet --no-index --no-deps --upgrade --target /tmp/lacking DIR/wheels/*.whl && \\
  PYTHONPATH=/tmp/lacking python3 tools/gpu_check.py OUT --data DIR/data
TEXT
