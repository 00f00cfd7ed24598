-- Where on the bus's dead-letter topic a letter was, if the bus has such topics: brought twice, it stands here once.
alter table dead_letter add column source text;
create unique index dead_letter_source on dead_letter (source) where source is not null;
