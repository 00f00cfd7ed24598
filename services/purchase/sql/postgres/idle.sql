select id, customer_id, input, status, updated_at, cancel_reason
from purchase
where ended_at is null and id > $1 and (updated_at <= $2 or updated_at > $3) and (last_seq = 0 or not $4)
order by id
limit $5
