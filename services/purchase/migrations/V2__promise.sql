-- Up to which purchase the orchestrator has been, or will be, told to forget its saga: it is never asked for again, and
-- no purchase is ever written there.
create table promise (
    one integer primary key check (one = 1),
    up_to integer not null check (up_to >= 0)
) strict;
insert into promise (one, up_to) values (1, 0);
