-- Of those that were not new: the purchase of that id, if it is the same one, and the purchase of that key.
select u.id, own.id is not null, keyed.id, keyed.fingerprint
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) as u (id, customer_id, input, idempotency_key)
left join lateral (
    select id from purchase where id = u.id and customer_id = u.customer_id and input = u.input offset 0
) as own on true
left join lateral (
    select id, fingerprint
    from purchase
    where customer_id = u.customer_id and idempotency_key = u.idempotency_key
    offset 0
) as keyed on true
