-- Of those that were not new: the purchase of that id, if it is the same one, and the purchase of that key.
select u.id, own.id is not null, keyed.id, keyed.fingerprint
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) as u (id, customer_id, input, idempotency_key)
left join purchase as own on own.id = u.id and own.customer_id = u.customer_id and own.input = u.input
left join purchase as keyed on keyed.customer_id = u.customer_id and keyed.idempotency_key = u.idempotency_key
