#!/bin/sh
# Makes what deploy/compose.yaml keeps secret, once: deploy/secrets/ (one file per role of the database) and deploy/.env.
# What is already there stays as it is.
#
#   deploy/secrets.sh [DIR]     DIR: where, instead of the folder of this script
set -eu
umask 077

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# The containers' users are not the owner of these files: the files may be read, the folder keeps everybody else out.
keep() {
  [ -s "$dir/secrets/$1" ] && return
  printf '%s\n' "$2" >"$dir/secrets/$1"
  chmod 444 "$dir/secrets/$1"
}

mkdir -p "$dir/secrets"
chmod 700 "$dir/secrets"
keep postgres_password "$(random)"
for name in account product order payment purchase orchestrator; do
  keep "${name}_url" "postgres://$name:$(random)@postgres:5432/$name"
done

if [ ! -e "$dir/.env" ]; then
  sed "s/^SAGA_ADMIN_TOKEN=\$/SAGA_ADMIN_TOKEN=$(random)/" "$here/.env.example" >"$dir/.env"
fi
