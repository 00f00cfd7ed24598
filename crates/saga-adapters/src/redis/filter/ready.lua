-- ARGV: version. Published if it is still the one under construction, and whole; the mark last. Answers 0 or 1.
if h.run ~= run or h.bld ~= ARGV[1] or not marked('bld', 'begun') then return 0 end
if h.bldkind == 'cuckoo' then
  if redis.pcall('cf.add', ids(h.bld), 'ready') ~= 1 then return 0 end
else
  redis.call('setbit', ids(h.bld), 0, 1)
end
local published = { pub = h.bld, pubkind = h.bldkind, pubbits = h.bldbits, pubseq = h.bldseq }
forget('pub')
set(published)
h.bld = nil -- its ids stay, under the other name
forget('bld')
return 1
