# For the run.sh of studies that replay attacks on honest runs: set `home` and `clean_config`, then
# source this file. What is finished is skipped, what was interrupted goes on.
tffl=${TFFL:-tffl}

clean() { # NAME, then options of simulate: an honest run that keeps its updates
  local out=$home/$1
  shift
  [ -e "$out/summary.json" ] && return
  if [ -e "$out/config.toml" ]; then "$tffl" simulate --resume "$out" --quiet; return; fi
  "$tffl" simulate --config "$clean_config" --out "$out" --quiet "$@"
}

replay() { # NAME MALICIOUS GRID.toml
  local out=$home/$1/$(basename "$3" .toml)_$2.csv
  [ -e "$out" ] && return
  "$tffl" replay "$home/$1" --grid "$3" --malicious "$2" --out "$out" > /dev/null
}
