#!/bin/sh
# One database and one role per service, on a server's first start (the image runs this as its superuser). A role may
# enter its own database and no other. Its password is the one in the URL that its service is given.
set -eu

secrets=${SECRETS_DIR:-/run/secrets}

for name in account product order payment purchase orchestrator; do
  url=$(cat "$secrets/${name}_url")
  password=${url#postgres://"$name":}
  password=${password%%@*}
  case $password in
    '' | *[!A-Za-z0-9._~-]*) echo "$secrets/${name}_url: want postgres://$name:PASSWORD@host:port/$name" >&2; exit 1 ;;
  esac
  # On standard input: the password is in no argument, and in no log.
  psql -qX -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres <<SQL
set log_statement = 'none';
create role "$name" login password '$password';
create database "$name" owner "$name" encoding 'UTF8' template template0;
revoke all on database "$name" from public;
SQL
done
psql -qX -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres -c 'revoke connect on database postgres from public'
