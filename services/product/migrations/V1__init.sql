-- The product service's own tables. Times are ms since the epoch, money is in minor units.

create table category (
    id integer primary key,
    name text not null check (length(name) > 0),
    description text not null,
    created_at integer not null,
    updated_at integer not null
) strict;

create table product (
    id integer primary key,
    category_id integer not null references category (id),
    name text not null check (length(name) > 0),
    brand_name text not null,
    description text not null,
    price integer not null check (price between 0 and 9007199254740991),
    currency_code text not null check (length(currency_code) = 3),
    -- what can be bought
    inventory integer not null check (inventory >= 0),
    -- what purchases have taken and not given back
    taken integer not null check (taken >= 0),
    -- what was ever put in: the three agree, always
    stocked integer not null check (stocked = inventory + taken),
    -- counts changes, for caches
    version integer not null,
    created_at integer not null,
    updated_at integer not null
) strict;

create index product_of_category on product (category_id, id);

-- The ledger of what people changed: sums to `stocked`.
create table stock_adjustment (
    seq integer primary key,
    product_id integer not null references product (id),
    kind text not null check (kind in ('initial', 'restock', 'adjust')),
    delta integer not null,
    reason text not null,
    at integer not null
) strict;

create index stock_adjustment_of_product on stock_adjustment (product_id);

-- The ledger of what sagas took and gave back: takes less returns are `taken`. Its key allows each once.
create table stock_movement (
    saga_id integer not null,
    definition text not null,
    product_id integer not null references product (id),
    kind text not null check (kind in ('take', 'return')),
    quantity integer not null check (quantity > 0),
    at integer not null,
    primary key (saga_id, definition, product_id, kind)
) strict, without rowid;

create table barrier (
    saga_id integer not null,
    definition text not null,
    step text not null,
    op text not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at integer not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
) strict, without rowid;
