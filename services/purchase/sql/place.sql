insert into purchase (
    id, customer_id, status, amount, currency_code, input, last_seq, results,
    created_at, updated_at, idempotency_key, fingerprint
)
select ?1, ?2, 'PENDING', ?3, ?4, ?5, 0, ?6, ?7, ?7, ?8, ?9
-- What was promised never to be asked for again can never be written.
where ?1 > (select up_to from promise)
on conflict (customer_id, idempotency_key) where idempotency_key is not null do nothing
