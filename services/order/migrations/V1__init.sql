-- The order service's own tables. Times are ms since the epoch, money is in minor units.

-- One row an order; its id is the purchase's. Cancelled is a tombstone, never a delete.
create table orders (
    id integer primary key,
    customer_id integer not null,
    status text not null check (status in ('PENDING', 'CONFIRMED', 'CANCELLED')),
    currency_code text not null check (length(currency_code) = 3),
    amount integer not null check (amount between 0 and 9007199254740991),
    -- the price snapshot: [[product_id, quantity, unit_price], …], never empty
    lines text not null check (json_valid(lines) and json_array_length(lines) > 0),
    created_at integer not null,
    updated_at integer not null
) strict;

-- a customer's orders, newest first
create index orders_of_customer on orders (customer_id, id);

create table barrier (
    saga_id integer not null,
    definition text not null,
    step text not null,
    op text not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at integer not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
) strict, without rowid;
