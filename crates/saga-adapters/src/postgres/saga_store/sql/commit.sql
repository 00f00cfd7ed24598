-- A batch in which no saga stands twice, as one statement: fence, rows, histories. Answers whether the fence held, and
-- the places of those that were as expected. $13: what this transaction has not written itself is not as expected, because
-- the batch before this one says what these sagas were expected to be.
with fence as materialized (
    -- Waits for a claim that is under way, and then sees its epoch.
    select epoch from owner where partition = $1::integer and epoch = $2::bigint for share
),
wanted as materialized (
    select u.*
    from unnest(
        $3::bigint[], $4::text[], $5::integer[], $6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::bigint[],
        $11::bigint[], $12::text[]
    ) with ordinality as u (
        id, definition, definition_version, version, status, awaiting, wake_at, started_at, updated_at, events, place
    )
    where exists (select from fence)
),
started as (
    insert into saga (
        id, definition, definition_version, partition, version, open, status, awaiting, wake_at, started_at, updated_at
    )
    select
        id, definition, definition_version, $1, 1, status not in ('COMPLETED', 'COMPENSATED'), status, awaiting,
        wake_at, started_at, updated_at
    from wanted
    where version = 1
        -- What is forgotten has ended: a start of it is late.
        and id > coalesce((select up_to from watermark as w where w.definition = wanted.definition), -1)
    order by id, definition
    on conflict (id, definition) do nothing
    returning id, definition
),
stepped as (
    update saga as s
    set version = w.version, status = w.status, awaiting = w.awaiting, wake_at = w.wake_at,
        updated_at = w.updated_at, open = w.status not in ('COMPLETED', 'COMPENSATED')
    from (
        select u.*, found.at
        from wanted as u
        cross join lateral (
            select ctid as at
            from saga
            where u.version > 1 and id = u.id and definition = u.definition and version = u.version - 1
                and (not $13::boolean or xmin = pg_current_xact_id()::xid)
            offset 0 -- a look-up each, however small the table was when this was planned
        ) as found
    ) as w
    where s.ctid = w.at
    returning s.id, s.definition
),
written as materialized (
    select place, id, definition, version, events
    from wanted
    -- `is true` keeps it a hashed look-up: as a join it would be every pair.
    where ((id, definition) in (select id, definition from started union all select id, definition from stepped)) is true
),
logged as (
    insert into history (saga_id, definition, version, events)
    select id, definition, version, events from written
)
select exists (select from fence), array(select place from written)
