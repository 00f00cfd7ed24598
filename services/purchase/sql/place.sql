insert into purchase (
    id, customer_id, status, amount, currency_code, input, last_seq, results,
    created_at, updated_at, idempotency_key, fingerprint
)
values (?1, ?2, 'PENDING', ?3, ?4, ?5, 0, ?6, ?7, ?7, ?8, ?9)
on conflict (customer_id, idempotency_key) where idempotency_key is not null do nothing
