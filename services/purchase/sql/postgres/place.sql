-- A batch of new purchases, in the order of keys: two replicas with the same keys wait in one direction only. Answers
-- the ids of those that are new; of a key that stands there twice the first is.
insert into purchase (
    id, customer_id, status, amount, currency_code, input, last_seq, results,
    created_at, updated_at, idempotency_key, fingerprint
)
select
    u.id, u.customer_id, 'PENDING', u.amount, u.currency_code, u.input, 0, $9::text,
    u.created_at, u.created_at, u.idempotency_key, u.fingerprint
from unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bytea[]
) with ordinality as u (id, customer_id, amount, currency_code, input, created_at, idempotency_key, fingerprint, place)
-- What was promised never to be asked for again can never be written.
where u.id > (select up_to from promise)
order by u.customer_id, u.idempotency_key, u.place
on conflict do nothing
returning id
