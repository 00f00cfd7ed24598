-- What all scripts of the filter begin with. KEYS[1] is the state, a hash; the ids of a version are beside it, in the
-- same slot. Fields: run, id, since; seq; pub, pubkind, pubbits, pubseq; bld, bldkind, bldbits, bldseq, bldby;
-- m:<member> = <lease's end>:<seq that it has caught up with>.
local state = KEYS[1]
local run = string.match(redis.call('info', 'server'), 'run_id:(%x+)')
local clock = redis.call('time')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local h = {}
local fields = redis.pcall('hgetall', state)
if not fields.err then
  for i = 1, #fields, 2 do h[fields[i]] = fields[i + 1] end
end

local function ids(version) return state .. ':' .. version end

local function forget(which)
  if h[which] then redis.call('unlink', ids(h[which])) end
  for _, field in ipairs({ '', 'kind', 'bits', 'seq', 'by' }) do
    h[which .. field] = nil
    redis.call('hdel', state, which .. field)
  end
end

local function set(values)
  local flat = {}
  for field, value in pairs(values) do
    h[field] = tostring(value)
    flat[#flat + 1] = field
    flat[#flat + 1] = tostring(value)
  end
  redis.call('hset', state, unpack(flat))
end

-- The state of another process (a failover, a restart) may lack its last writes: it is none.
local function begin_state(id)
  if h.run == run then return end
  if h.pub then redis.call('unlink', ids(h.pub)) end
  if h.bld then redis.call('unlink', ids(h.bld)) end
  redis.call('del', state)
  h = {}
  set({ run = run, id = id, since = string.format('%.0f', now), seq = 0 })
end

local function member(value)
  local ends, seq = string.match(value or '', '^(%d+):(%d+)$')
  return tonumber(ends or 0), tonumber(seq or 0)
end

-- Bit 0 of a bitmap: complete. Bit 1: begun, and not lost since.
local function marked(which, mark)
  local version, kind = h[which], h[which .. 'kind']
  if not version then return false end
  if kind == 'cuckoo' then return redis.pcall('cf.exists', ids(version), mark) == 1 end
  return redis.pcall('getbit', ids(version), mark == 'ready' and 0 or 1) == 1
end

-- Where an item's bits are: two hashes make ten.
local function each_bit(item, bits, visit)
  local first, step = struct.unpack('>I4I4', item)
  for i = 0, 9 do visit(string.format('%.0f', (first + i * step) % bits + 8)) end
end

-- Everybody who may add is there, has added what the version missed, and had time to join.
local function trusted(lease, joining)
  if h.run ~= run or not h.pub or now < tonumber(h.since) + joining then return false end
  for field, value in pairs(h) do
    if string.sub(field, 1, 2) == 'm:' then
      local ends, seq = member(value)
      if ends <= now or ends > now + lease or seq < tonumber(h.pubseq) then return false end
    end
  end
  return true
end
