-- Up to which saga a definition's are forgotten: what it covers and is not here has ended and was removed.
create table watermark (
    definition text primary key,
    up_to integer not null check (up_to >= -1),
    removed integer not null default -1 check (removed between -1 and up_to) -- everything up to here has been removed
) strict, without rowid;
