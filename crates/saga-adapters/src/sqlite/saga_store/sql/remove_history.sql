delete from history
where definition = ?1 and saga_id > ?2 and saga_id <= ?3
    and saga_id in (select id from saga where definition = ?1 and id > ?2 and id <= ?3 and open = 0)
