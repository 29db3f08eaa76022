#!lua flags=allow-oom
-- Make a staged message's recipients ready, a slice at a time; whom the suppression list has end.
-- KEYS: [1] meta. ARGV: [1] {id, limit}.
-- Returns {'ok', rows left, numbers of recipients that are suppressed…} | {'missing', rows present, rows expected} | {'unknown'}.
-- Invariants: nothing becomes ready before all rows are there; a repeated or interrupted commit
--   goes on where it stopped (field `next` of the message); `committing` lets the ticker finish it.
-- Bound: O(limit), at most 500 rows.
local m = load_message(req.id)
local key = message_key(req.id)
local h = call('HMGET', key, 'rows', 'next', 'gone', 'o')
if not m or h[3] or not h[1] or tonumber(h[4]) <= 0 then
  call('SREM', P .. 'committing', req.id)
  if not m or h[3] then return { 'unknown' } end
  call('HDEL', key, 'rows', 'next')
  return { 'ok', 0 }
end
local at = tonumber(h[2])
if not at then
  if tonumber(h[1]) < m[M_COUNT] then return { 'missing', tonumber(h[1]), m[M_COUNT] } end
  announce(req.id, m)
  call('ZADD', P .. 'deadlines', first_deadline(m), req.id)
  at = 1
end
local last = math.min(m[M_COUNT], at + req.limit - 1)
local by_queue, numbers, staged, rows, answer = {}, {}, {}, {}, { 'ok', m[M_COUNT] - last }
for n = at, last do
  local rec = load_recipient(req.id, n)
  if rec and rec[STATE] == 's' then
    numbers[#numbers + 1], staged[#staged + 1], rows[#rows + 1] = n, rec, { rec[ADDRESS] }
  end
end
local suppressed = suppressed_among(m[M_TENANT], rows)
for i, rec in ipairs(staged) do
  local n, q, entry = numbers[i], queue_of(m, rec), suppressed and suppressed[i]
  count_state('s', -1)
  if entry then
    local reason, text = word_of(entry)
    finish(q, req.id, n, m, rec, 'S', reason, text)
    tell_suppressed(req.id, n, m, rec, entry)
    answer[#answer + 1] = n
  else
    rec[STATE] = 'r'
    save_recipient(req.id, n, rec)
    count_state('r', 1)
    local rids = by_queue[q]
    if not rids then rids = {}; by_queue[q] = rids end
    rids[#rids + 1] = rid_of(req.id, n)
  end
end
for q, rids in pairs(by_queue) do make_ready(q, rids) end
if last < m[M_COUNT] then
  call('HSET', key, 'next', last + 1)
  call('SADD', P .. 'committing', req.id)
else
  call('HDEL', key, 'rows', 'next')
  call('SREM', P .. 'committing', req.id)
end
settle_queues()
return answer
