-- The product service's own tables. Times are ms since the epoch, money is in minor units.

create table category (
    id bigint primary key check (id between 1 and 9007199254740991),
    name text not null check (length(name) > 0),
    description text not null,
    created_at bigint not null,
    updated_at bigint not null
);

create table product (
    id bigint primary key check (id between 1 and 9007199254740991),
    category_id bigint not null constraint product_of_a_category references category (id),
    name text not null check (length(name) > 0),
    brand_name text not null,
    description text not null,
    price bigint not null check (price between 0 and 9007199254740991),
    currency_code text collate "C" not null check (length(currency_code) = 3),
    -- what can be bought
    inventory bigint not null check (inventory >= 0),
    -- what purchases have taken and not given back
    taken bigint not null check (taken >= 0),
    -- what was ever put in: the three agree, always
    stocked bigint not null check (stocked = inventory + taken and stocked <= 9007199254740991),
    -- counts changes, for caches
    version bigint not null check (version > 0),
    created_at bigint not null,
    updated_at bigint not null
) with (fillfactor = 50); -- a purchase's new row stays in its page

create index product_of_category on product (category_id, id);

-- The ledger of what people changed: sums to `stocked`.
create table stock_adjustment (
    seq bigint generated always as identity primary key,
    product_id bigint not null references product (id),
    kind text collate "C" not null check (kind in ('initial', 'restock', 'adjust')),
    delta bigint not null,
    reason text not null,
    at bigint not null
);

create index stock_adjustment_of_product on stock_adjustment (product_id);

-- The ledger of what sagas took and gave back: takes less returns are `taken`. Its key allows each once.
create table stock_movement (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    product_id bigint not null references product (id),
    kind text collate "C" not null check (kind in ('take', 'return')),
    quantity bigint not null check (quantity > 0),
    at bigint not null,
    primary key (saga_id, definition, product_id, kind)
);

create table barrier (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    step text collate "C" not null,
    op text collate "C" not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at bigint not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
);
