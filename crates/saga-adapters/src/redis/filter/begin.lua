-- ARGV: id for a new state, version, capacity, bits, member. Answers 1.
begin_state(ARGV[1])
forget('bld')
local kind = 'cuckoo'
if redis.pcall('cf.reserve', ids(ARGV[2]), ARGV[3], 'bucketsize', 1, 'expansion', 2).err then
  kind = 'bits'
  redis.call('bitfield', ids(ARGV[2]), 'set', 'u1', tonumber(ARGV[4]) + 8, 0, 'set', 'u1', 1, 1)
else
  redis.call('cf.add', ids(ARGV[2]), 'begun')
end
local seq = string.format('%.0f', math.max(now, tonumber(h.seq) + 1))
set({ seq = seq, bld = ARGV[2], bldkind = kind, bldbits = ARGV[4], bldseq = seq, bldby = ARGV[5] })
return 1
