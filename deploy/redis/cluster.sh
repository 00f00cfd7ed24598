#!/bin/sh
# Makes one cluster of six Redis nodes: three masters, each with a replica. Run again it changes nothing, except that
# nodes which have come back with other addresses are introduced to each other anew.
#
#   cluster.sh host:port …
set -eu

# Nodes know each other by address, not by name.
addresses=
for node; do
  host=$(getent hosts "${node%:*}" | head -n 1 | cut -d ' ' -f 1)
  [ -n "$host" ] || { echo "cluster: ${node%:*} has no address" >&2; exit 1; }
  addresses="$addresses $host:${node##*:}"
done
first=${addresses# }
first=${first%% *}
ask() { redis-cli -h "${first%:*}" -p "${first##*:}" "$@"; }

if [ "$(ask cluster info | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')" -lt $# ]; then
  # shellcheck disable=SC2086 # one word per address
  redis-cli --cluster create $addresses --cluster-replicas 1 --cluster-yes
else
  for address in $addresses; do ask cluster meet "${address%:*}" "${address##*:}"; done
fi

tries=0
until ask cluster info | grep -q '^cluster_state:ok'; do
  tries=$((tries + 1))
  [ $tries -lt 60 ] || { echo 'cluster: not ok after 30 s' >&2; ask cluster nodes >&2; exit 1; }
  sleep 0.5
done
echo 'cluster: ok'
