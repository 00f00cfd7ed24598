-- Up to which saga a definition's are forgotten: what it covers and is not here has ended and was removed.
create table watermark (
    definition text collate "C" primary key,
    up_to bigint not null check (up_to >= -1),
    removed bigint not null default -1 check (removed between -1 and up_to) -- everything up to here has been removed
);
