select m.saga_id, m.definition, m.product_id, m.quantity
from unnest($1::bigint[], $2::text[]) as k (saga_id, definition)
join stock_movement as m on m.saga_id = k.saga_id and m.definition = k.definition and m.kind = 'take'
order by m.saga_id, m.definition, m.product_id
