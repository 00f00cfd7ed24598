-- ARGV: items, 8 bytes each. To the published version and to the one under construction; answers the state's id. A
-- version that cannot take them, or has lost its contents, is none.
local function add_cuckoo(key, from, to)
  local items = {}
  for at = from, to, 8 do items[#items + 1] = string.sub(ARGV[1], at, at + 7) end
  local added = redis.pcall('cf.insertnx', key, 'nocreate', 'items', unpack(items))
  if added.err then return false end
  for _, outcome in ipairs(added) do
    if outcome == -1 then return false end
  end
  return true
end

local function add_bits(key, bits, from, to)
  local sets = {}
  for at = from, to, 8 do
    each_bit(string.sub(ARGV[1], at, at + 7), bits, function(bit)
      for _, part in ipairs({ 'set', 'u1', bit, '1' }) do sets[#sets + 1] = part end
    end)
  end
  return not redis.pcall('bitfield', key, unpack(sets)).err
end

if h.run ~= run then return '' end
for _, which in ipairs({ 'bld', 'pub' }) do
  if h[which] then
    local good = marked(which, 'begun')
    -- A hundred at a time: Lua's stack holds some thousand arguments.
    for from = 1, #ARGV[1], 800 do
      local to = math.min(from + 799, #ARGV[1])
      if good and h[which .. 'kind'] == 'cuckoo' then
        good = add_cuckoo(ids(h[which]), from, to)
      elseif good then
        good = add_bits(ids(h[which]), tonumber(h[which .. 'bits']), from, to)
      end
    end
    if not good then forget(which) end
  end
end
return h.id
