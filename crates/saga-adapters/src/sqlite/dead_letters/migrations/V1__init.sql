-- Records that could not be handled, with their original bytes.
create table dead_letter (
    id integer primary key autoincrement, -- never used twice: a page token or a re-drive may still name it
    topic text not null, -- the original one
    partition integer not null,
    position integer not null, -- the offset in that partition
    at integer not null, -- ms since the epoch
    attempts integer not null,
    reason text not null,
    key blob not null,
    headers text not null, -- JSON array of [name, value]; a value that is not text is an array of bytes
    payload blob not null
) strict;

create index dead_letter_topic on dead_letter (topic, id);
