select k.saga_id, k.definition, m.product_id, m.quantity
from unnest($1::bigint[], $2::text[]) as k (saga_id, definition)
cross join lateral (
    select product_id, quantity
    from stock_movement
    where saga_id = k.saga_id and definition = k.definition and kind = 'take'
    offset 0
) as m
order by k.saga_id, k.definition, m.product_id
