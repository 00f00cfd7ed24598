update purchase
set cancel_requested_at = ?3, cancel_reason = ?4, updated_at = max(updated_at, ?3)
where id = ?1 and customer_id = ?2 and cancel_requested_at is null
