update purchase
set idempotency_key = null, fingerprint = null
where id > $1 and id <= $2 and idempotency_key is not null and created_at < $3
