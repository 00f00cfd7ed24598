-- What the operators' desk needs: who did what and why, and lists of what has ended.

-- One row for each changing order of an operator.
create table audit (
    id integer primary key autoincrement, -- never used twice: a page token names it
    at integer not null, -- ms since the epoch
    actor text not null,
    action text not null,
    target text not null,
    reason text not null,
    outcome text not null, -- begun, until it is known; then done or refused
    details text not null -- JSON
) strict;

-- Written once for each saga, when it ends: newest first by definition and state, and how many there are.
create index saga_ended on saga (definition, status, started_at, id) where open = 0;
