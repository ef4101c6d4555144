#!/usr/bin/env bash
# Measures how fast tffl is, on an otherwise idle machine, and writes README.md from it:
#   bash results/speed/run.sh [engine|maps|defenses|clients|cluster ...]
# Where something else runs, give it precedence: sudo chrt --rr 10 bash results/speed/run.sh
set -euo pipefail
tffl=${TFFL:-tffl}
here=$(dirname "$0")

measure() { # FILE, then what to measure
  local out=$here/$1.json
  shift
  "$tffl" bench "$@" --json > "$out.part"
  mv "$out.part" "$out"
}

for what in ${@:-engine maps defenses clients cluster}; do
  if [ "$what" = defenses ]; then
    for model in cnn resnet18; do
      for clients in 20 100; do
        measure "defenses_${model}_$clients" defenses --model $model --clients $clients
      done
    done
  else
    measure "$what" "$what"
  fi
done
python "$here/make.py"
