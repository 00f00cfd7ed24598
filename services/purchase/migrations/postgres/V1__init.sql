-- One row a purchase: what was asked for, and how it stands. Written by POST, then by result events.
create table purchase (
    id bigint primary key check (id between 1 and 9007199254740991), -- the saga's id; ascending with time
    customer_id bigint not null check (customer_id between 1 and 9007199254740991),
    status text collate "C" not null
        check (status in ('PENDING', 'RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'COMPLETED', 'COMPENSATED')),
    amount bigint not null check (amount between 0 and 9007199254740991), -- minor units
    currency_code text collate "C" not null check (length(currency_code) = 3),
    input text not null,                                       -- the saga's input (JSON): the lines at the quoted prices
    last_seq integer not null check (last_seq >= 0),           -- the last result event that was applied
    results text not null,                                     -- those events; see results.rs
    reason text,                                               -- why not (JSON: code, detail)
    created_at bigint not null,                                -- ms since the epoch, like every time here
    updated_at bigint not null check (updated_at >= created_at),
    ended_at bigint,
    cancel_requested_at bigint,
    cancel_reason text,
    idempotency_key text collate "C",                          -- forgotten after 48 h
    fingerprint bytea check (length(fingerprint) = 16),        -- of the request that brought the key
    check ((ended_at is not null) = (status in ('COMPLETED', 'COMPENSATED'))),
    check ((cancel_requested_at is null) = (cancel_reason is null)),
    check ((idempotency_key is null) = (fingerprint is null))
) with (fillfactor = 50); -- the next event's row stays in its page

-- A customer's purchases, newest first.
create index purchase_of_customer on purchase (customer_id, id);

-- One purchase a key.
create unique index purchase_of_key on purchase (customer_id, idempotency_key) where idempotency_key is not null;

-- What has not ended: counted at the start, looked after by the sweeper. Ending a purchase takes it out.
create index purchase_in_flight on purchase (id) where ended_at is null;

-- Up to which purchase the idempotency keys have been forgotten.
create table forgotten_keys (
    one integer primary key check (one = 1),
    up_to bigint not null check (up_to >= 0)
);
insert into forgotten_keys (one, up_to) values (1, 0);
