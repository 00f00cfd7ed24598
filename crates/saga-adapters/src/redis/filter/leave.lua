-- ARGV: member.
return redis.call('hdel', state, 'm:' .. ARGV[1])
