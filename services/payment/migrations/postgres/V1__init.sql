-- The payment service's own tables. Times are ms since the epoch, money is in minor units.

-- One row an attempt to charge; its id is the purchase's.
create table payment (
    id bigint primary key check (id >= 0),
    customer_id bigint not null check (customer_id >= 0),
    amount bigint not null check (amount between 0 and 9007199254740991),
    currency_code text collate "C" not null check (length(currency_code) = 3),
    status text collate "C" not null check (status in ('CAPTURED', 'DECLINED', 'VOIDED')),
    -- the gateway's own number; a declined one has none
    reference text check ((reference is null) = (status = 'DECLINED')),
    created_at bigint not null,
    updated_at bigint not null
);

-- a customer's payments, newest first
create index payment_of_customer on payment (customer_id, id);

create table barrier (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    step text collate "C" not null,
    op text collate "C" not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at bigint not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
);
