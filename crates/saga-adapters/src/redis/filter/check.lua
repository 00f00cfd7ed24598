-- ARGV: lease, time to join, item. 0: no, 1: maybe, 2: unknown.
if not trusted(tonumber(ARGV[1]), tonumber(ARGV[2])) then return 2 end
if h.pubkind == 'cuckoo' then
  if not marked('pub', 'ready') then return 2 end
  return redis.call('cf.exists', ids(h.pub), ARGV[3])
end
local asked = { 'get', 'u1', '0' }
each_bit(ARGV[3], tonumber(h.pubbits), function(bit)
  asked[#asked + 1] = 'get'
  asked[#asked + 1] = 'u1'
  asked[#asked + 1] = bit
end)
local bits = redis.call('bitfield_ro', ids(h.pub), unpack(asked))
if bits[1] == 0 then return 2 end
for i = 2, #bits do
  if bits[i] == 0 then return 0 end
end
return 1
