-- A role that looks and changes nothing.
alter table account drop constraint account_role_check;
alter table account add constraint account_role_check check (role in ('customer', 'viewer', 'operator', 'admin'));

-- One row for each role that was given, where the orchestrator's audit log is out of reach: see its migration.
create table audit (
    id bigint generated always as identity primary key,
    at bigint not null,
    actor text collate "C" not null,
    action text collate "C" not null,
    target text collate "C" not null,
    reason text not null,
    outcome text collate "C" not null,
    details text not null
);
