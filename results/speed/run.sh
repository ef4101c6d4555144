#!/usr/bin/env bash
# Measures how fast tffl is, on a machine that does nothing else, and writes the page:
#   bash results/speed/run.sh [engine|evaluation|maps|defenses|clients|cluster|on-disk ...]
# Where something else runs, give it precedence: sudo chrt --rr 10 bash results/speed/run.sh
# on-disk takes root and Linux' control groups of version 1, and is measured only if it is named.
set -euo pipefail
tffl=${TFFL:-tffl}
out=runs/speed
mkdir -p $out

measure() { # FILE, then what to measure
  local file=$out/$1.json
  shift
  "$tffl" bench "$@" --json > "$file.part"
  mv "$file.part" "$file"
}

for what in ${@:-engine evaluation maps defenses clients cluster}; do
  if [ "$what" = defenses ]; then
    for model in cnn resnet18; do
      for clients in 20 100; do
        measure "defenses_${model}_$clients" defenses --model $model --clients $clients
      done
    done
  else
    measure "${what//-/_}" "$what"
  fi
done
"$tffl" page speed
