-- The payment service's own tables. Times are ms since the epoch, money is in minor units.

-- One row an attempt to charge; its id is the purchase's.
create table payment (
    id integer primary key,
    customer_id integer not null,
    amount integer not null check (amount between 0 and 9007199254740991),
    currency_code text not null check (length(currency_code) = 3),
    status text not null check (status in ('CAPTURED', 'DECLINED', 'VOIDED')),
    -- the gateway's own number; a declined one has none
    reference text check ((reference is null) = (status = 'DECLINED')),
    created_at integer not null,
    updated_at integer not null
) strict;

-- a customer's payments, newest first
create index payment_of_customer on payment (customer_id, id);

create table barrier (
    saga_id integer not null,
    definition text not null,
    step text not null,
    op text not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at integer not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
) strict, without rowid;
