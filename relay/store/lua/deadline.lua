#!lua flags=allow-oom
-- A message's delay notice or expiry is due.
-- KEYS: [1] meta. ARGV: [1] {id, from (first recipient number), limit, reports {…}, notified}; [2…] contents of reports.
-- Without `act`, returns {'none'} | {'notice'|'expiry', packed m, packed {{n, record}…}, next from}: what a
--   report must name. With `act` ('notice' | 'expiry'), applies it: recipients 1…limit from `from`.
-- Invariants: claimed recipients are left to settle; the message stays on the deadline index until
--   its last recipient is final. Bound: O(limit), at most 500 recipients.
local m = load_message(req.id)
if not m then redis.call('ZREM', P .. 'deadlines', req.id); return { 'none' } end
local due = m[M_NOTICE] > 0 and m[M_NOTICE] <= now and m[M_EXPIRES] > now and 'notice'
  or m[M_EXPIRES] <= now and 'expiry'
if not due then redis.call('ZADD', P .. 'deadlines', first_deadline(m), req.id); return { 'none' } end
local last = math.min(m[M_COUNT], req.from + req.limit - 1)
if not req.act then
  local open = {}
  for n = req.from, last do
    local rec = load_recipient(req.id, n)
    if rec and not FINAL[rec[STATE]] and rec[STATE] ~= 'c' then open[#open + 1] = { n, rec } end
  end
  return { due, cmsgpack.pack(m), cmsgpack.pack(open), last < m[M_COUNT] and last + 1 or 0 }
end
if req.act ~= due then return { 'none' } end
local changed = 0
for n = req.from, last do
  local rec = load_recipient(req.id, n)
  if rec and not FINAL[rec[STATE]] and rec[STATE] ~= 'c' then
    changed = changed + 1
    local q, rid = queue_of(m, rec), req.id .. '.' .. n
    if due == 'expiry' then
      if rec[STATE] == 's' then count_state('s', -1) else leave_state(q, rid, rec) end
      local text = rec[TEXT] ~= '' and rec[TEXT] or 'no attempt could be made in time'
      finish(q, req.id, n, m, rec, 'X', rec[REASON] ~= '' and rec[REASON] or 'expired', text)
      count_outcome('expired', 'none')
      emit_recipient('recipient.expired', req.id, n, m, rec, { text = text })
    else
      emit_recipient('recipient.delayed', req.id, n, m, rec, { text = rec[TEXT] })
    end
  end
end
if last >= m[M_COUNT] then
  if due == 'notice' then
    m[M_NOTICE] = 0
    redis.call('HSET', message_key(req.id), 'm', cmsgpack.pack(m))
    redis.call('ZADD', P .. 'deadlines', m[M_EXPIRES], req.id)
  elseif tonumber(redis.call('HGET', message_key(req.id), 'o') or 0) > 0 then
    redis.call('ZADD', P .. 'deadlines', now + 30000, req.id)
  end
end
for i, report in ipairs(req.reports) do
  if not load_message(report.id) then
    local r = add_message(report, ARGV[1 + i])
    emit('message.accepted', report.id .. ':message.accepted', report.event)
    add_recipients(report, r)
  end
end
settle_queues()
return { due, changed, last < m[M_COUNT] and last + 1 or 0 }
