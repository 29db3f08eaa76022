#!lua flags=allow-oom
-- Suspend, resume, park or flush queues by name.
-- `lane` with verb park parks that lane instead.
-- KEYS: [1] meta. ARGV: [1] {verb (suspend resume park flush), queues {…}, id, until_ms, reason, text, limit}.
-- Returns {changed, queue to go on with or ''}. Invariants: O(queues) for suspend and resume; flush
--   makes at most `limit` recipients ready and says where to go on. Bound: 200 queues, 500 recipients.
local changed = 0
if req.lane then
  park_lane(req.lane, now + req.for_ms, req.reason, req.text)
  return { 1, '' }
end
for _, q in ipairs(req.queues) do
  if redis.call('EXISTS', qkey(q)) == 1 then
    if req.verb == 'suspend' then
      redis.call('HSET', qkey(q), 'su', req.until_ms, 'si', req.id)
      set_timer('q:' .. q, req.until_ms)
      activate(q)
      changed = changed + 1
    elseif req.verb == 'park' then
      redis.call('HSET', qkey(q), 'pu', now + req.for_ms, 'pr', req.reason, 'pt', req.text)
      set_timer('q:' .. q, now + req.for_ms)
      activate(q)
      changed = changed + 1
    elseif req.verb == 'resume' then
      if redis.call('HGET', qkey(q), 'si') == req.id then
        redis.call('HDEL', qkey(q), 'su', 'si')
        activate(q)
        changed = changed + 1
      end
    else
      local rids = redis.call('ZRANGE', qkey(q) .. ':d', 0, req.limit - changed - 1)
      for _, rid in ipairs(rids) do
        local id, n = split_rid(rid)
        local rec = load_recipient(id, n)
        redis.call('ZREM', qkey(q) .. ':d', rid)
        if rec and rec[STATE] == 'd' then
          shift(q, 'd', -1)
          count_state('d', -1)
          enter_ready(q, rid, rec, false)
          save_recipient(id, n, rec)
        end
      end
      changed = changed + #rids
      if changed >= req.limit then settle_queues(); return { changed, q } end
    end
  end
end
settle_queues()
return { changed, '' }
