update saga
set version = ?3, status = ?4, awaiting = ?5, wake_at = ?6, updated_at = ?7, open = 0
where id = ?1 and definition = ?2 and version = ?3 - 1
