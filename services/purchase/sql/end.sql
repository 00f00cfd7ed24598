update purchase
set status = ?2, last_seq = ?3, results = ?4, reason = ?5, updated_at = max(updated_at, ?6), ended_at = max(created_at, ?6)
where id = ?1
