#!lua flags=allow-oom
-- Make a staged message's recipients ready, a slice at a time.
-- KEYS: [1] meta. ARGV: [1] {id, limit}.
-- Returns {'ok', rows left} | {'missing', rows present, rows expected} | {'unknown'}.
-- Invariants: nothing becomes ready before all rows are there; a repeated or interrupted commit
--   goes on where it stopped (field `next` of the message); `committing` lets the ticker finish it.
-- Bound: O(limit), at most 500 rows.
local m = load_message(req.id)
local key = message_key(req.id)
local h = redis.call('HMGET', key, 'rows', 'next', 'ev', 'gone', 'o')
if not m or h[4] or not h[1] or tonumber(h[5]) <= 0 then
  redis.call('SREM', P .. 'committing', req.id)
  if not m or h[4] then return { 'unknown' } end
  redis.call('HDEL', key, 'rows', 'next', 'ev')
  return { 'ok', 0 }
end
local at = tonumber(h[2])
if not at then
  if tonumber(h[1]) < m[M_COUNT] then return { 'missing', tonumber(h[1]), m[M_COUNT] } end
  announce(req.id, m, h[3])
  redis.call('ZADD', P .. 'deadlines', first_deadline(m), req.id)
  at = 1
end
local last = math.min(m[M_COUNT], at + req.limit - 1)
local by_queue = {}
for n = at, last do
  local rec = load_recipient(req.id, n)
  if rec and rec[STATE] == 's' then
    rec[STATE] = 'r'
    save_recipient(req.id, n, rec)
    count_state('s', -1)
    count_state('r', 1)
    local q = queue_of(m, rec)
    local rids = by_queue[q]
    if not rids then rids = {}; by_queue[q] = rids end
    rids[#rids + 1] = req.id .. '.' .. n
  end
end
for q, rids in pairs(by_queue) do make_ready(q, rids) end
if last < m[M_COUNT] then
  redis.call('HSET', key, 'next', last + 1)
  redis.call('SADD', P .. 'committing', req.id)
else
  redis.call('HDEL', key, 'rows', 'next', 'ev')
  redis.call('SREM', P .. 'committing', req.id)
end
settle_queues()
return { 'ok', m[M_COUNT] - last }
