#!/usr/bin/env bash
# Plays the runs of the page, and writes it; skips what is finished. With `tffl[flower]` installed,
# from the root:  bash results/flower/run.sh
set -euo pipefail
python=${PYTHON:-python}
home=runs/flower

play() { # NAME KIND NODES MALICIOUS SETTING...
  local out=$home/$1 kind=$2 nodes=$3 malicious=$4
  shift 4
  [ -e "$out/accuracy.csv" ] && [ -e "$out/truth.csv" ] && return
  rm -rf "$out"
  "$python" examples/flower/loopback.py "$kind" --out "$out" \
    --nodes "$nodes" --malicious "$malicious" --config "$@"
}

for attack in label-flip sign-flip nan; do
  for defense in flower-fedavg flower-multi-krum update-consensus shield; do
    play "${attack}_$defense" simulation 10 3 "attack=\"$attack\"" "defense=\"$defense\""
  done
done
play deployment_shield deployment 6 2 'attack="label-flip"' 'defense="shield"' num-server-rounds=3
"$python" -m tffl page flower
