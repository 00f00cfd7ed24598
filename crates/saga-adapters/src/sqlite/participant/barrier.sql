create table barrier (
    saga_id integer not null,
    definition text not null,
    step text not null,
    op text not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at integer not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
) strict, without rowid;
