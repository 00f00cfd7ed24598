-- Who drives a partition: a commit of an older epoch is refused.
create table owner (
    partition integer primary key check (partition >= 0),
    epoch integer not null check (epoch > 0),
    syncs integer not null default 0 -- counts, so that there is something to sync when that is all that is asked for
) strict;

-- Where each saga stands: small, updated in place. What it is made of is its history.
create table saga (
    id integer not null check (id >= 0),
    definition text not null,
    definition_version integer not null check (definition_version > 0),
    partition integer not null,
    version integer not null check (version > 0), -- transitions so far; compare-and-set compares it
    open integer not null check (open in (0, 1)), -- 0: terminal; a column of its own, so that a step touches no index
    status text not null
        check (status in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'COMPENSATION_STUCK', 'STUCK')),
    awaiting text not null, -- step.op, for people
    wake_at integer, -- ms since the epoch
    started_at integer not null, -- ms since the epoch
    updated_at integer not null, -- ms since the epoch
    primary key (id, definition),
    check (open = (status not in ('COMPLETED', 'COMPENSATED')))
) strict, without rowid;

-- What a new owner takes up, and where people look for what hangs.
create index saga_open on saga (id, definition, partition) where open = 1;

-- One row a transition, never changed.
create table history (
    saga_id integer not null,
    definition text not null,
    version integer not null check (version > 0),
    events text not null, -- JSON array
    primary key (saga_id, definition, version)
) strict, without rowid;
