-- Records that could not be handled, with their original bytes, brought here from the bus's dead-letter topics.
create table dead_letter (
    id bigint generated always as identity primary key,
    source text collate "C" unique, -- where on the dead-letter topic: brought twice, it stands here once
    topic text collate "C" not null, -- the original one
    partition bigint not null,
    position bigint not null, -- the offset in that partition
    at bigint not null, -- ms since the epoch
    attempts bigint not null,
    reason text not null,
    key bytea not null,
    headers text not null, -- JSON array of [name, value]; a value that is not text is an array of bytes
    payload bytea not null
);

create index dead_letter_topic on dead_letter (topic, id);
