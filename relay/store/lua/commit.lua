-- Make a staged message's recipients ready, a slice at a time.
-- KEYS: [1] meta. ARGV: [1] {id, expect (rows that must be staged), limit}.
-- Returns {'ok', rows left} | {'missing', rows present, rows expected} | {'unknown'}.
-- Invariants: nothing becomes ready before all rows are there; a repeated or interrupted commit
--   goes on where it stopped (field `next` of the message); `committing` lets the ticker finish it.
-- Bound: O(limit), at most 500 rows.
local m = load_message(req.id)
if not m then return { 'unknown' } end
local key = message_key(req.id)
local at = tonumber(redis.call('HGET', key, 'next') or 1)
if at == 1 then
  local present = tonumber(redis.call('HGET', key, 'o') or 0)
  if present < m[M_COUNT] then return { 'missing', present, m[M_COUNT] } end
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
for q, rids in pairs(by_queue) do
  if redis.call('EXISTS', qkey(q)) == 0 then create_queue(q) end
  push_ready(q, rids, 'r')
  shift(q, 'r', #rids)
end
redis.call('HSET', key, 'next', last + 1)
if last < m[M_COUNT] then
  redis.call('SADD', P .. 'committing', req.id)
else
  redis.call('SREM', P .. 'committing', req.id)
end
settle_queues()
return { 'ok', m[M_COUNT] - last }
