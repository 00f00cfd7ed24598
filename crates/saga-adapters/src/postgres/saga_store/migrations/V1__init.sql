-- Who drives a partition: a commit of an older epoch is refused.
create table owner (
    partition integer primary key check (partition >= 0),
    epoch bigint not null check (epoch > 0)
) with (fillfactor = 10);

-- Where each saga stands: small, updated in place. What it is made of is its history.
create table saga (
    id bigint not null check (id >= 0),
    definition text collate "C" not null,
    definition_version integer not null check (definition_version > 0),
    partition integer not null,
    version bigint not null check (version > 0), -- transitions so far; compare-and-set compares it
    open boolean not null, -- false: terminal; a column of its own, so that a step touches no index
    status text collate "C" not null
        check (status in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'COMPENSATION_STUCK', 'STUCK')),
    awaiting text collate "C" not null, -- step.op, for people
    wake_at bigint, -- ms since the epoch
    started_at bigint not null, -- ms since the epoch
    updated_at bigint not null, -- ms since the epoch
    primary key (id, definition),
    check (open = (status not in ('COMPLETED', 'COMPENSATED')))
) with (fillfactor = 50); -- a step's new row stays in its page

-- What a new owner takes up, and where people look for what hangs.
create index saga_open on saga (id, definition, partition) where open;

-- One row a transition, never changed.
create table history (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    version bigint not null check (version > 0),
    events text not null, -- JSON array
    primary key (saga_id, definition, version)
);
