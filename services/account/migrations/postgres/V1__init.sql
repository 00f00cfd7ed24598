-- The account service's own tables. Times are ms since the epoch.

create table account (
    customer_id bigint primary key check (customer_id between 1 and 9007199254740991),
    -- lower case, so that one address is one account
    email text collate "C" not null constraint account_of_email unique
        check (email = lower(email) and length(email) between 3 and 254),
    -- argon2id: salt, hash and the cost that it was made with
    salt bytea not null check (length(salt) = 16),
    hash bytea not null check (length(hash) = 32),
    memory_kib integer not null check (memory_kib > 0),
    passes integer not null check (passes > 0),
    first_name text not null,
    last_name text not null,
    address text not null,
    phone_number text not null,
    role text collate "C" not null check (role in ('customer', 'operator', 'admin')),
    created_at bigint not null
);

-- A log-in. Refresh tokens of one session are a family: reuse of a spent one revokes them all.
create table session (
    id bigint primary key check (id between 1 and 9007199254740991),
    customer_id bigint not null references account (customer_id),
    created_at bigint not null,
    expires_at bigint not null check (expires_at > created_at),
    revoked_at bigint
);

create table refresh_token (
    -- of the token; the token itself is nowhere
    hash bytea primary key check (length(hash) = 32),
    session_id bigint not null references session (id),
    issued_at bigint not null,
    spent_at bigint
);

-- Ed25519 keys (PKCS#8). The newest signs; all that are not retired verify.
create table signing_key (
    kid text collate "C" primary key,
    pkcs8 bytea not null,
    created_at bigint not null,
    retired_at bigint
);
