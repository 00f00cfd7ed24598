-- The account service's own tables. Times are ms since the epoch.

create table account (
    customer_id integer primary key,
    -- lower case, so that one address is one account
    email text not null unique check (email = lower(email) and length(email) between 3 and 254),
    -- argon2id: salt, hash and the cost that it was made with
    salt blob not null check (length(salt) = 16),
    hash blob not null check (length(hash) = 32),
    memory_kib integer not null check (memory_kib > 0),
    passes integer not null check (passes > 0),
    first_name text not null,
    last_name text not null,
    address text not null,
    phone_number text not null,
    role text not null check (role in ('customer', 'operator', 'admin')),
    created_at integer not null
) strict;

-- A log-in. Refresh tokens of one session are a family: reuse of a spent one revokes them all.
create table session (
    id integer primary key,
    customer_id integer not null references account (customer_id),
    created_at integer not null,
    expires_at integer not null check (expires_at > created_at),
    revoked_at integer
) strict;

create table refresh_token (
    -- of the token; the token itself is nowhere
    hash blob primary key check (length(hash) = 32),
    session_id integer not null references session (id),
    issued_at integer not null,
    spent_at integer
) strict, without rowid;

-- Ed25519 keys (PKCS#8). The newest signs; all that are not retired verify.
create table signing_key (
    kid text primary key,
    pkcs8 blob not null,
    created_at integer not null,
    retired_at integer
) strict;
