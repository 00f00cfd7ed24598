-- How a batch of purchases stands now. One that has not ended stays in the index of what is in flight.
update purchase as p
set status = u.status, last_seq = u.last_seq, results = u.results, reason = u.reason,
    updated_at = greatest(p.updated_at, $7::bigint),
    ended_at = case when u.ended then greatest(p.created_at, $7::bigint) else p.ended_at end
from unnest($1::bigint[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::boolean[])
    as u (id, status, last_seq, results, reason, ended)
-- A look-up each, however small the table was when this was planned; the rows are locked already.
cross join lateral (select ctid as at from purchase where id = u.id offset 0) as found
where p.ctid = found.at
