#!lua flags=allow-oom
-- Hand out destinations to be routed or lanes to be served, or take back what found no room.
-- KEYS: [1] meta. ARGV: [1] {list ('unrouted' | 'wanting:<pool>'), queue (of wake-ups), limit, again_ms}
--   or {list, back {name…}}.
-- Returns names, longest waiting first. Invariants: what is handed out stays on the list and is
--   handed out again after again_ms, unless it was routed, taken up or emptied meanwhile: a process
--   may die between any two steps. Bound: O(limit), at most 50.
local list = P .. req.list
if req.back then
  for _, name in ipairs(req.back) do call('ZADD', list, 'XX', now, name) end
  return {}
end
call('DEL', P .. 'woken:' .. req.queue)
local names = call('ZRANGEBYSCORE', list, '-inf', now, 'LIMIT', 0, req.limit)
for _, name in ipairs(names) do call('ZADD', list, 'XX', now + req.again_ms, name) end
return names
