create table barrier (
    saga_id bigint not null check (saga_id >= 0),
    definition text collate "C" not null,
    step text collate "C" not null,
    op text collate "C" not null check (op in ('do', 'undo')),
    outcome text not null, -- the final answer, as on the wire
    at bigint not null, -- ms since the epoch
    primary key (saga_id, definition, step, op)
);
