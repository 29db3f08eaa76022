#!lua flags=allow-oom
-- Suspend, resume, park or flush queues; make and end suspensions.
-- KEYS: [1] meta. ARGV: [1] {verb, …}:
--   rule {id, match {class, tenant, campaign, destination}, for_ms, reason, actor}: a suspension begins;
--   over {id}: it ends; queues then follow by `follow`; done {id}: all of them have;
--   follow {queues {…}}: put the suspensions in force into these queues;
--   park {queues {…}, for_ms, reason, text}: let them rest; or {lane, …}: that lane instead;
--   flush {queues {…}, limit}: deferred recipients are ready now.
-- Returns {queues or recipients changed, queue to go on with or ''}; rule: {0, until ms}.
-- Invariants: the rule comes before the queues, so those created meanwhile follow it; a caller that
--   dies between leaves it in `suspending`, and the ticker goes on. Bound: 200 queues, 500 recipients.
local function park(q)
  queue(q).pu = now + req.for_ms
  call('HSET', qkey(q), 'pu', now + req.for_ms, 'pr', req.reason, 'pt', req.text)
  set_timer('q:' .. q, now + req.for_ms)
  touched[q] = true
  return 1
end
local function follow(q)
  apply_suspensions(q)
  local until_ms = queue(q).su
  if until_ms > 0 then set_timer('q:' .. q, until_ms) end
  touched[q] = true
  return 1
end
local function flush(q, most)
  local rids = call('ZRANGE', qkey(q) .. ':d', 0, most - 1)
  for _, rid in ipairs(rids) do
    local id, n = split_rid(rid)
    local rec = load_recipient(id, n)
    if rec and rec[STATE] == 'd' then
      leave_state(q, rid, rec)
      enter_ready(q, rid, rec, false)
      save_recipient(id, n, rec)
    else
      call('ZREM', qkey(q) .. ':d', rid)
    end
  end
  return #rids
end
if req.verb == 'rule' then
  local until_ms = now + req.for_ms
  call('HSET', P .. 'suspensions', req.id, cmsgpack.pack({ match = req.match, reason = req.reason,
    ['until'] = until_ms, actor = req.actor }))
  call('SADD', P .. 'suspending', req.id)
  set_timer('s:' .. req.id, until_ms)
  return { 0, until_ms }
elseif req.verb == 'over' then
  local raw = call('HGET', P .. 'suspensions', req.id)
  if not raw then return { 0, '' } end
  local rule = cmsgpack.unpack(raw)
  rule['until'] = 0
  call('HSET', P .. 'suspensions', req.id, cmsgpack.pack(rule))
  call('SADD', P .. 'suspending', req.id)
  return { 1, '' }
elseif req.verb == 'done' then
  call('SREM', P .. 'suspending', req.id)
  local raw = call('HGET', P .. 'suspensions', req.id)
  if raw and cmsgpack.unpack(raw)['until'] <= now then
    call('HDEL', P .. 'suspensions', req.id)
    call('ZREM', P .. 'timers', 's:' .. req.id)
  end
  return { 1, '' }
elseif req.lane then
  park_lane(req.lane, now + req.for_ms, req.reason, req.text)
  return { 1, '' }
end
local changed = 0
for _, q in ipairs(req.queues) do
  if queue(q).exists then
    if req.verb == 'follow' then changed = changed + follow(q)
    elseif req.verb == 'park' then changed = changed + park(q)
    else
      changed = changed + flush(q, req.limit - changed)
      if changed >= req.limit then settle_queues(); return { changed, q } end
    end
  end
end
settle_queues()
return { changed, '' }
