#!lua flags=allow-oom
-- A message's bounces, delay notice or expiry are due.
-- KEYS: [1] meta. ARGV: [1] {id, from (first recipient number), limit, act, asked, named {number…},
--   reports {…}}; [2…] contents of reports.
-- Without `act`, returns {'none'} | {'bounce'|'notice'|'expiry', packed m, packed {{n, record}…}, next from,
--   asked}: what a report must name. With `act` (one of these), applies it to the recipients `named` from
--   there on, and queues the reports: {'none'} | {act, recipients changed, next from}.
-- Invariants: claimed recipients are left to settle; nothing happens when one of those named is no longer
--   open (the report would be wrong), nor a second time; the message stays on the index until its last
--   recipient is final; of a hand-over that was never finished the rows that came expire; bounces asked
--   for since (`asked` is not `bo` any more) stay due.
-- Bound: O(limit), at most 500 recipients.
local CLAIMED_AGAIN_MS = 30000
local m = load_message(req.id)
if not m then call('ZREM', P .. 'deadlines', req.id); return { 'none' } end
local key = message_key(req.id)
local h = call('HMGET', key, 'o', 'rows', 'next', 'gone', 'bo')
if tonumber(h[1] or 0) <= 0 then call('ZREM', P .. 'deadlines', req.id); return { 'none' } end
local due = h[5] and 'bounce'
  or m[M_NOTICE] > 0 and m[M_NOTICE] <= now and m[M_EXPIRES] > now and 'notice'
  or m[M_EXPIRES] <= now and 'expiry'
if not due then call('ZADD', P .. 'deadlines', first_deadline(m), req.id); return { 'none' } end
-- Staged and never committed: what has not come by its expiry never will.
local is_staging = h[2] and not h[3] and not h[4]
if is_staging and due == 'notice' then
  call('ZADD', P .. 'deadlines', m[M_EXPIRES], req.id)
  return { 'none' }
end
local function close()
  local missing = m[M_COUNT] - tonumber(h[2])
  call('HSET', key, 'gone', 1)
  if call('HINCRBY', key, 'o', 0 - missing) <= 0 then end_message(req.id, m) end
end
local function concerns(rec)
  if not rec or FINAL[rec[STATE]] or rec[STATE] == 'c' then return false end
  return due ~= 'bounce' or rec[WISH] == 'bounce'
end
local last = math.min(m[M_COUNT], req.from + req.limit - 1)
local following = last < m[M_COUNT] and last + 1 or 0
if not req.act then
  local open = {}
  for n = req.from, last do
    local rec = load_recipient(req.id, n)
    if concerns(rec) then open[#open + 1] = { n, rec } end
  end
  return { due, cmsgpack.pack(m), cmsgpack.pack(open), following, h[5] or '' }
end
if req.act ~= due then return { 'none' } end
local open = {}
for i, n in ipairs(req.named) do
  local rec = load_recipient(req.id, n)
  if not concerns(rec) then return { 'none' } end
  open[i] = rec
end
if is_staging and due == 'expiry' then close() end
local apply = {
  bounce = function(n, rec)
    rec[WISH] = ''
    leave_state(queue_of(m, rec), rid_of(req.id, n), rec)
    fail_by_order(queue_of(m, rec), req.id, n, m, rec)
  end,
  expiry = function(n, rec)
    if rec[STATE] == 's' then count_state('s', -1)
    else leave_state(queue_of(m, rec), rid_of(req.id, n), rec) end
    local text = said(rec)
    if text == '' then text = 'no attempt could be made in time' end
    finish(queue_of(m, rec), req.id, n, m, rec, 'X', rec[REASON] ~= '' and rec[REASON] or 'expired', text)
    count_outcome('expired', 'none')
    emit_recipient('recipient.expired', req.id, n, m, rec, { answer = rec[ANSWER] })
  end,
  notice = function(n, rec)
    emit_recipient('recipient.delayed', req.id, n, m, rec, { text = said(rec), answer = rec[ANSWER] })
  end,
}
for i, n in ipairs(req.named) do apply[due](n, open[i]) end
local is_open = tonumber(call('HGET', key, 'o') or 0) > 0
if following > 0 then  -- the caller goes on
elseif due == 'notice' then
  m[M_NOTICE] = 0
  call('HSET', key, 'm', cmsgpack.pack(m))
  call('ZADD', P .. 'deadlines', m[M_EXPIRES], req.id)
elseif due == 'expiry' then
  if is_open then call('ZADD', P .. 'deadlines', now + CLAIMED_AGAIN_MS, req.id) end
elseif h[5] == req.asked then
  call('HDEL', key, 'bo')
  if is_open then call('ZADD', P .. 'deadlines', first_deadline(m), req.id) end
end
for i, report in ipairs(req.reports) do add_report(report, ARGV[1 + i]) end
settle_queues()
return { due, #req.named, following }
