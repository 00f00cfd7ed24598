-- The order service's own tables. Times are ms since the epoch, money is in minor units.

-- One row an order; its id is the purchase's. Cancelled is a tombstone, never a delete.
create table orders (
    id bigint primary key check (id >= 0),
    customer_id bigint not null check (customer_id >= 0),
    status text collate "C" not null check (status in ('PENDING', 'CONFIRMED', 'CANCELLED')),
    currency_code text collate "C" not null check (length(currency_code) = 3),
    amount bigint not null check (amount between 0 and 9007199254740991),
    -- the price snapshot: [[product_id, quantity, unit_price], …], never empty; as it was written
    lines json not null check (json_array_length(lines) > 0),
    created_at bigint not null,
    updated_at bigint not null
) with (fillfactor = 80); -- a confirmed order's row stays in its page

-- a customer's orders, newest first
create index orders_of_customer on orders (customer_id, id);

create table barrier (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    step text collate "C" not null,
    op text collate "C" not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at bigint not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
);
