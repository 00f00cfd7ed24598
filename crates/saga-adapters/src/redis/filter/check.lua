-- ARGV: lease, time to join, items, 8 bytes each. For each 0: no, or 1: maybe; nothing at all: unknown.
if not trusted(tonumber(ARGV[1]), tonumber(ARGV[2])) then return {} end
if h.pubkind == 'cuckoo' and not marked('pub', 'ready') then return {} end

-- The mark, bit 0, and the item's own.
local function bits_of(item)
  local asked = { 'get', 'u1', '0' }
  each_bit(item, tonumber(h.pubbits), function(bit)
    for _, part in ipairs({ 'get', 'u1', bit }) do asked[#asked + 1] = part end
  end)
  return redis.call('bitfield_ro', ids(h.pub), unpack(asked))
end

local answers = {}
for at = 1, #ARGV[3], 8 do
  local item, answer = string.sub(ARGV[3], at, at + 7), 1
  if h.pubkind == 'cuckoo' then
    answer = redis.call('cf.exists', ids(h.pub), item)
  else
    for place, bit in ipairs(bits_of(item)) do
      if place == 1 and bit == 0 then return {} end
      if bit == 0 then answer = 0 end
    end
  end
  answers[#answers + 1] = answer
end
return answers
