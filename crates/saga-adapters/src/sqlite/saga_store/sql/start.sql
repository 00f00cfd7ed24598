insert into saga (
    id, definition, definition_version, partition, version, open, status, awaiting, wake_at, started_at, updated_at
)
select ?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10
-- What is forgotten has ended: a start of it is late.
where ?1 > coalesce((select up_to from watermark where definition = ?2), -1)
on conflict (id, definition) do nothing
