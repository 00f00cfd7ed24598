-- What the operators' desk needs: who did what and why, and lists of what has ended.

-- One row for each changing order of an operator.
create table audit (
    id bigint generated always as identity primary key,
    at bigint not null, -- ms since the epoch
    actor text collate "C" not null,
    action text collate "C" not null,
    target text collate "C" not null,
    reason text not null,
    outcome text collate "C" not null, -- begun, until it is known; then done or refused
    details text not null -- JSON
);

-- Written once for each saga, when it ends: newest first by definition and state, and how many there are.
create index saga_ended on saga (definition, status, started_at, id) where not open;
