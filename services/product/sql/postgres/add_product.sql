with home as materialized (
    select id from category where id = $2::bigint for key share
),
made as (
    insert into product (
        id, category_id, name, brand_name, description, price, currency_code,
        inventory, taken, stocked, version, created_at, updated_at
    )
    select $1::bigint, id, $3::text, $4::text, $5::text, $6::bigint, $7::text, $8::bigint, 0, $8::bigint, 1, $9::bigint, $9::bigint
    from home
    returning id, inventory
),
noted as (
    insert into stock_adjustment (product_id, kind, delta, reason, at)
    select id, 'initial', inventory, 'created', $9::bigint from made
)
select id from made
