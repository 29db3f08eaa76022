#!lua flags=allow-oom
-- Hand out destinations to be routed or lanes to be served, or take back what found no room.
-- KEYS: [1] meta. ARGV: [1] {list ('unrouted' | 'wanting:<pool>'), queue (of wake-ups), limit, again_ms,
--   stays, late} or {list, back {name…}} or {list, queue, task}.
-- Returns names, longest waiting first. Invariants: what is handed out stays on the list and is
--   handed out again after again_ms, unless it was routed, taken up or emptied meanwhile: a process
--   may die between any two steps. Who `stays` will look again by itself in a moment: no wake-up is
--   pushed meanwhile, unless it is late and others could help. A `task` is a wake-up that found no
--   room: it is posted again while there is work, if there are others. Bound: O(limit), at most 50.
local list = P .. req.list
if req.back then
  for _, name in ipairs(req.back) do call('ZADD', list, 'XX', now, name) end
  return {}
end
local has_others = call('ZCARD', P .. 'incarnations') > 1
if req.task then
  call('DEL', P .. 'woken:' .. req.queue)
  if has_others and call('ZCOUNT', list, '-inf', now) > 0 then wake(req.queue, req.task) end
  return {}
end
local alone = req.stays and (not req.late or not has_others)
if alone then call('SET', P .. 'woken:' .. req.queue, '1', 'EX', WAKE_TTL_S)
else call('DEL', P .. 'woken:' .. req.queue) end
local names = call('ZRANGEBYSCORE', list, '-inf', now, 'LIMIT', 0, req.limit)
for _, name in ipairs(names) do call('ZADD', list, 'XX', now + req.again_ms, name) end
return names
