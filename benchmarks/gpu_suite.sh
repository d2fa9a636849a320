#!/usr/bin/env bash
# Everything that needs a GPU, in order of value, each stage with a time limit of its own. Needs no network.
#
#   benchmarks/gpu_suite.sh [--out DIR] [--data CIFAR10] [--wheels DIR] [--budget SECONDS] [--only STAGE,...] [--short]
#
#   --out DIR         logs, tables and the run folders go here (default: gpu_suite_out)
#   --data CIFAR10    folder or .tar.xz with train/<class>/*.jpg and test/<class>/*.jpg; without it nothing is trained
#   --wheels DIR      wheels of what is missing; packages that are installed, torch above all, are kept as they are
#   --budget SECONDS  for all stages together (default: 1500); a stage that no longer fits is skipped, and said so
#   --epochs N        of the training stages (default: what the pipelines say); a cut-off run resumes at the next call
#   --only STAGE,...  these stages alone; their names are in the summary
#   --short           a rehearsal that takes a minute or two, on a CPU too
#
# Stages run without MLflow and Optuna (`tracking=none`). The exit code is the number of stages that failed.
set -uo pipefail
cd "$(dirname "$0")/.."

out=gpu_suite_out data= wheels= budget=1500 epochs= only= short=
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$2; shift 2 ;;
        --data) data=$2; shift 2 ;;
        --wheels) wheels=$2; shift 2 ;;
        --budget) budget=$2; shift 2 ;;
        --epochs) epochs=$2; shift 2 ;;
        --only) only=,$2,; shift 2 ;;
        --short) short=yes; shift ;;
        *) echo "gpu_suite.sh: unknown option $1; the first lines of the script list them all" >&2; exit 2 ;;
    esac
done
python=${PYTHON:-python3}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd) || exit 2
export JEPA_LAB_CACHE=$out/cache  # nothing is found that an earlier suite compiled or probed
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
device=$([ -n "$short" ] && echo cpu || echo cuda)
started=$SECONDS failed=0
summary=$out/summary.md
printf '| stage | seconds | limit | outcome |\n| --- | --- | --- | --- |\n' >"$summary"

# stage NAME LIMIT COMMAND...: run it for at most LIMIT seconds, its output in NAME.log
stage() {
    local name=$1 limit=$2 from=$SECONDS code outcome
    shift 2
    if [ -n "$only" ] && [[ $only != *,$name,* ]]; then return; fi
    if [ $((SECONDS - started + limit / 4)) -gt "$budget" ]; then
        printf '| %s | 0 | %s | skipped: the budget of %s s is used up |\n' "$name" "$limit" "$budget" >>"$summary"
        return
    fi
    [ $((budget - SECONDS + started)) -lt "$limit" ] && limit=$((budget - SECONDS + started))
    echo "== $name (at most $limit s)"
    timeout --signal=TERM --kill-after=20 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    case $code in
        0) outcome=done ;;
        124 | 137 | 143) outcome="stopped at its limit" ;;
        *) outcome="failed with exit code $code: see $name.log"; failed=$((failed + 1)); tail -n 15 "$out/$name.log" ;;
    esac
    printf '| %s | %s | %s | %s |\n' "$name" $((SECONDS - from)) "$limit" "$outcome" >>"$summary"
}

install() { # into a folder of its own, so that nothing installed is replaced
    mkdir -p "$out/site"
    for wheel in "$wheels"/*.whl; do
        local package
        package=$(basename "$wheel" | cut -d- -f1 | tr '_' '-')
        "$python" -m pip show -q "$package" 2>/dev/null ||
            "$python" -m pip install -q --no-index --no-deps --no-compile --target "$out/site" --upgrade "$wheel" || return
    done
}

step() { # NAME LIMIT PIPELINE OVERRIDES...
    local name=$1 limit=$2
    shift 2
    stage "$name" "$limit" "$python" -m benchmarks.step "$@" "training.device=$device" \
        --out "$out/$name.md" $([ -n "$short" ] && echo "--blocks 1 --warmup 1 --workers 0 --baseline fused")
}

train() { # NAME LIMIT PIPELINE OVERRIDES...
    local name=$1 limit=$2
    shift 2
    stage "$name" "$limit" "$python" -m jepa_lab run "$@" --runs "$out/runs" --resume auto \
        tracking=none "training.device=$device" ${epochs:+"training.epochs=$epochs"}
}

if [ -n "$wheels" ]; then
    stage wheels 120 bash -c "$(declare -f install); python='$python' out='$out' wheels='$wheels'; install"
    export PYTHONPATH=$PYTHONPATH:$out/site
fi
stage environment 60 "$python" -c '
import platform, sys, torch
print(platform.platform(), sys.version, "torch", torch.__version__, sep="\n")
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
if [[ $data == *.tar.xz ]]; then
    mkdir -p "$out/data"
    stage unpack 120 tar -xJf "$data" -C "$out/data" --strip-components=0
    data=$(find "$out/data" -maxdepth 2 -type d -name train -printf '%h' -quit)
fi

if [ -n "$short" ]; then
    stage tests 300 "$python" -m pytest -q -m gpu -p no:cacheprovider tests/unit
    step step-digits 300 pipelines/digits.yaml masker=multi_block training.batch_size=16
    stage masks 60 "$python" -m benchmarks.masks --device cpu --batch 16 --blocks 1 --out "$out/masks.md"
    stage packing 120 "$python" -m benchmarks.packing pipelines/digits.yaml training.batch_size=16 --device cpu \
        --trials 1,2 --seconds 1 --out "$out/packing.md"
    train train-digits 300 pipelines/digits.yaml --preset smoke
else
    small='{name: custom, embed_dim: 384, depth: 12, num_heads: 6}'
    base='{name: custom, embed_dim: 768, depth: 12, num_heads: 12}'
    predictor='{name: custom, embed_dim: 384, depth: 12, num_heads: 12}'
    photographs=(data.image_size=224 encoder.patch_size=16 "predictor.size=$predictor" training.batch_size=128)
    stage tests 420 "$python" -m pytest -q -m gpu -p no:cacheprovider tests
    step step-cifar10 240 pipelines/cifar10.yaml
    step second-start 120 pipelines/cifar10.yaml --baseline none --blocks 1  # its "first step" compiles nothing
    [ -z "$data" ] || train train-cifar10 900 pipelines/cifar10.yaml "data.root=$data"
    stage packing 360 "$python" -m benchmarks.packing pipelines/cifar10.yaml --seconds 8 --out "$out/packing.md"
    step step-cifar10_best 240 pipelines/cifar10_best.yaml
    [ -z "$data" ] || train train-cifar10_best 900 pipelines/cifar10_best.yaml "data.root=$data"
    step step-vit_b16 300 pipelines/cifar10_best.yaml "${photographs[@]}" "encoder.size=$base"
    step step-vit_s16 240 pipelines/cifar10_best.yaml "${photographs[@]}" "encoder.size=$small"
    stage masks 60 "$python" -m benchmarks.masks --out "$out/masks.md"
    stage scaling 180 "$python" -m benchmarks.scaling pipelines/cifar10.yaml --out "$out/scaling.md"
fi

cat "$summary"
exit "$failed"
