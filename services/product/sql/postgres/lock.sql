-- The products that a batch of commands is about, by its inputs and by the ledger, locked in the order of ids.
select id, price, currency_code, inventory, taken
from product
where id = any (array(
    select unnest($1::bigint[])
    union
    select m.product_id
    from unnest($2::bigint[], $3::text[]) as k (saga_id, definition)
    cross join lateral (
        select product_id
        from stock_movement
        where saga_id = k.saga_id and definition = k.definition and kind = 'take'
        offset 0 -- a look-up each, however small the table was when this was planned
    ) as m
))
order by id
for no key update
