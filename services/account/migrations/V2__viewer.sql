-- A role that looks and changes nothing. The rule stands on the column, so the column is made anew.
alter table account add column new_role text not null default 'customer'
    check (new_role in ('customer', 'viewer', 'operator', 'admin'));
update account set new_role = role;
alter table account drop column role;
alter table account rename column new_role to role;

-- One row for each role that was given, where the orchestrator's audit log is out of reach: see its migration.
create table audit (
    id integer primary key autoincrement,
    at integer not null,
    actor text not null,
    action text not null,
    target text not null,
    reason text not null,
    outcome text not null,
    details text not null
) strict;
