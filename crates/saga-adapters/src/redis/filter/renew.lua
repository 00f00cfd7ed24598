-- ARGV: id for a new state, member, lease's end, state known, seq caught up with, lease, time to join,
-- time to forget. Answers: now, state's id, seq, kind published, trusted, to be filled.
begin_state(ARGV[1])
local me = 'm:' .. ARGV[2]
for field, value in pairs(h) do
  -- A member that is gone may have left rows that no filter knows of.
  if string.sub(field, 1, 2) == 'm:' and field ~= me and member(value) + tonumber(ARGV[8]) < now then
    redis.call('hdel', state, field)
    forget('pub')
    forget('bld')
  end
end
-- Who has not met this state (nor its server's clock) only joins: its lease is over at once.
local ends, seq = string.format('%.0f', now), '0'
if ARGV[4] == h.id then ends, seq = ARGV[3], ARGV[5] end
set({ [me] = ends .. ':' .. seq })
if h.pub and not marked('pub', 'ready') then forget('pub') end
if h.bld and not marked('bld', 'begun') then forget('bld') end
local building = h.bld and member(h['m:' .. h.bldby]) > now
return {
  now, h.id, tonumber(h.seq), h.pubkind or '',
  trusted(tonumber(ARGV[6]), tonumber(ARGV[7])) and 1 or 0,
  (h.pub or building) and 0 or 1,
}
