insert into saga (
    id, definition, definition_version, partition, version, open, status, awaiting, wake_at, started_at, updated_at
)
values (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)
on conflict (id, definition) do nothing
