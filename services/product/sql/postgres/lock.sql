-- The products that a batch of commands is about, by its inputs and by the ledger, locked in the order of ids.
select id, price, currency_code, inventory, taken
from product
where id in (
    select unnest($1::bigint[])
    union
    select m.product_id
    from unnest($2::bigint[], $3::text[]) as k (saga_id, definition)
    join stock_movement as m on m.saga_id = k.saga_id and m.definition = k.definition and m.kind = 'take'
)
order by id
for no key update
