-- The newest purchases first, cut off, then asked when they changed.
select updated_at, id
from (select updated_at, id from purchase where customer_id = $1 order by id desc limit $3) as newest
where updated_at >= $2
order by updated_at, id
