#!lua flags=allow-oom
-- Record where a destination's mail goes, or that it cannot be known yet.
-- KEYS: [1] meta. ARGV: [1] {destination, lane, site (packed record), fresh_ms, stale_ms} or
--   {destination, retry_ms, reason, text}; [2] the site record's bytes.
-- Returns the number of queues that were moved or activated.
-- Invariants: a queue is indexed in one lane only; a failed look-up never drops a route that is
--   still within its stale time; asking again is on a timer, so no queue is forgotten.
-- Bound: O(queues of the destination), 500 a call; others move when claim meets them.
local d = req.destination
redis.call('ZREM', P .. 'unrouted', d)
local old = route_of(d)
local route
if req.lane then
  route = { lane = req.lane, fresh = now + req.fresh_ms, stale = now + req.stale_ms, fails = 0,
    ['until'] = 0, reason = '', text = '' }
  redis.call('HSET', P .. 'ln:' .. req.lane, 'site', ARGV[2])
  redis.call('EXPIRE', P .. 'ln:' .. req.lane, 172800)
  redis.call('ZREM', P .. 'timers', 'd:' .. d)
else
  route = old or { lane = '', fresh = 0, stale = 0, fails = 0 }
  route.fails = route.fails + 1
  local wait = math.min(req.retry_ms * route.fails * route.fails, req.max_retry_ms)
  route['until'] = now + wait
  route.reason = req.reason
  route.text = req.text
  set_timer('d:' .. d, route['until'])
end
redis.call('SET', P .. 'ro:' .. d, cmsgpack.pack(route), 'PX',
  math.max(route.stale, route['until'], now) - now + 3600000)
local queues = redis.call('SRANDMEMBER', P .. 'dest:' .. d, 500)
for _, q in ipairs(queues) do activate(q) end
flush_counters()
return #queues
