select id, customer_id, status, amount, currency_code, input, last_seq, results, idempotency_key, ended_at
from purchase
order by id
