# What the scripts here share; to be sourced after STACK_DIR and STACK_PORT are set. Both may change from call to call.

saga=target/release/saga

say() { printf '\n== %s\n' "$*"; }

# The generator, then seconds of CPU and memory by process. Needs `admin`, see `operator`.
load() {
  cpu >"$STACK_DIR/before"
  "$saga" load "${admin[@]}" "$@" 2>/dev/null | grep -Ev '^(unexpected|errors +0)'
  cpu >"$STACK_DIR/after"
  join "$STACK_DIR/before" "$STACK_DIR/after" | awk '{
    printf "  %-20s %7.2f s of CPU  %5.0f MiB\n", $1, ($4 - $2) / 100, $5 / 1024
    if ($1 ~ /^saga/) { cpu += ($4 - $2) / 100; memory += $5 / 1024 }
    all += ($4 - $2) / 100
  } END { printf "  %-20s %7.2f s of CPU  %5.0f MiB\n  %-20s %7.2f s of CPU\n", "the six services", cpu, memory, "everything", all }'
}

cpu() { # name, ticks of CPU, KiB of memory
  local file pid
  for file in "$STACK_DIR"/*.pid; do
    pid=$(head -1 "$file")
    echo "$(basename "$file" .pid) $(family "$pid") $(awk '/VmRSS/ {print $2}' "/proc/$pid/status")"
  done | sort
}

family() { # PostgreSQL works in children; those that have ended are in their parent's sums
  local pid total=0
  for pid in $1 $(pgrep -P "$1"); do total=$((total + $(awk '{print $14 + $15 + $16 + $17}' "/proc/$pid/stat" 2>/dev/null || echo 0))); done
  echo $total
}

pg() { (cd /tmp && "$@" -h 127.0.0.1 -p "$STACK_PORT" -U stack); }

# An account that may ask for the lag and the books; makes `admin`. The stack's environment is to be read before.
operator() {
  echo 'a long password' >"$STACK_DIR/password"
  "$saga" admin create --email bench@example.com --role admin --password-file "$STACK_DIR/password" \
    --reason "to measure" >/dev/null
  admin=(--admin-email bench@example.com --admin-password-file "$STACK_DIR/password")
}
