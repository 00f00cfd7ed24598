-- ARGV: lease, time to join, items, 8 bytes each. For each 0: no, or 1: maybe; nothing at all: unknown.
if not trusted(tonumber(ARGV[1]), tonumber(ARGV[2])) or not marked('pub', 'ready') then return {} end

local function maybe(item)
  if h.pubkind == 'cuckoo' then return redis.call('cf.exists', ids(h.pub), item) end
  local asked = {}
  each_bit(item, tonumber(h.pubbits), function(bit)
    for _, part in ipairs({ 'get', 'u1', bit }) do asked[#asked + 1] = part end
  end)
  for _, bit in ipairs(redis.call('bitfield_ro', ids(h.pub), unpack(asked))) do
    if bit == 0 then return 0 end
  end
  return 1
end

local answers = {}
for at = 1, #ARGV[3], 8 do answers[#answers + 1] = maybe(string.sub(ARGV[3], at, at + 7)) end
return answers
