#!lua flags=allow-oom
-- Record where a destination's mail goes, or that it cannot be known yet.
-- KEYS: [1] meta. ARGV: [1] {destination, after (the last queue of the call before, '' at first), limit,
--   lane, fresh_ms, stale_ms} or, instead of the last three, {retry_ms, max_retry_ms, reason, text};
--   [2] the site record's bytes.
-- Returns {queues moved or activated, the last of them where more follow, else ''}.
-- Invariants: a queue is indexed in one lane only; a failed look-up never drops a route that is
--   still within its stale time; until all queues are where they belong, and after a failure, the
--   destination is on a timer, so no queue is forgotten. Bound: O(limit), at most 500 queues.
local HANDED_OUT_MS = 15000
local d, timer = req.destination, 'd:' .. req.destination
if req.after == '' then
  call('ZREM', P .. 'unrouted', d)
  local route
  if req.lane then
    route = { lane = req.lane, fresh = now + req.fresh_ms, stale = now + req.stale_ms, fails = 0,
      ['until'] = 0, reason = '', text = '' }
    call('HSET', P .. 'ln:' .. req.lane, 'site', ARGV[2])
    call('PEXPIRE', P .. 'ln:' .. req.lane, 2 * req.stale_ms)
  else
    route = route_of(d) or { lane = '', fresh = 0, stale = 0, fails = 0 }
    -- Of look-ups side by side one failure counts.
    if (route['until'] or 0) <= now then
      route.fails = route.fails + 1
      route['until'] = now + math.min(req.retry_ms * route.fails * route.fails, req.max_retry_ms)
    end
    route.reason = req.reason
    route.text = req.text
  end
  routes[d] = route
  call('SET', P .. 'ro:' .. d, cmsgpack.pack(route), 'PX',
    math.max(route.stale, route['until'], now) - now + 3600000)
end
local from = req.after == '' and '-' or '(' .. req.after
local names = call('ZRANGEBYLEX', P .. 'dest:' .. d, from, '+', 'LIMIT', 0, req.limit)
local more = #names == req.limit and names[#names] or ''
-- Before the queues are looked at: what is on a timer is not asked for again.
if more ~= '' then call('ZADD', P .. 'timers', now + HANDED_OUT_MS, timer)
elseif req.lane then call('ZREM', P .. 'timers', timer)
else call('ZADD', P .. 'timers', route_of(d)['until'], timer) end
for _, q in ipairs(names) do touched[q] = true end
settle_queues()
return { #names, more }
