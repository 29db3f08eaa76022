-- Put one message into the store; also how settle and deadline enqueue reports.
-- a: id, m (packed record), expires_ms, notice_ms, ingress, event (packed), rcpt {{address, destination}…},
--    first (number of the first recipient of this chunk), staged.
-- A staged message has `rows` (how many have come) and `ev` (its event) until it is committed; all of
-- its recipients count as open from the first chunk on, so it cannot end before it began.
local function announce(id, m, event)
  emit('message.accepted', id .. ':message.accepted', event)
  count('counters', 'messages:' .. m[M_INGRESS], 1)
  count('counters', 'accepted:' .. m[M_INGRESS] .. ':' .. m[M_CLASS], m[M_COUNT])
  count('minute:' .. math.floor(now / 60000), 'accepted', m[M_COUNT])
end
local function add_recipients(a, m)
  local new, state = 0, a.staged and 's' or 'r'
  local by_queue = {}
  for i, pair in ipairs(a.rcpt) do
    local n = a.first + i - 1
    local rec = { 1, state, pair[1], pair[2], 0, 0, 0, '', '', 0, '', '' }
    if redis.call('HSETNX', bucket_key(a.id, n), n, cmsgpack.pack(rec)) == 1 then
      new = new + 1
      count_outstanding(destination_of(rec), m[M_CREATED], 1)
      if not a.staged then
        local q = queue_of(m, rec)
        local rids = by_queue[q]
        if not rids then rids = {}; by_queue[q] = rids end
        rids[#rids + 1] = a.id .. '.' .. n
      end
    end
  end
  count_state(state, new)
  for q, rids in pairs(by_queue) do make_ready(q, rids) end
  if a.staged then redis.call('HINCRBY', message_key(a.id), 'rows', new) end
  return new
end
local function first_deadline(m)
  if m[M_NOTICE] > 0 then return math.min(m[M_NOTICE], m[M_EXPIRES]) end
  return m[M_EXPIRES]
end
local function add_message(a, content)
  local m = cmsgpack.unpack(a.m)
  m[M_CREATED] = now
  m[M_EXPIRES] = now + a.expires_ms
  m[M_NOTICE] = a.notice_ms > 0 and now + a.notice_ms or 0
  redis.call('HSET', message_key(a.id), 'm', cmsgpack.pack(m), 'o', m[M_COUNT])
  redis.call('SET', content_key(a.id), content)
  redis.call('ZADD', P .. 'deadlines', first_deadline(m), a.id)
  if a.staged then redis.call('HSET', message_key(a.id), 'rows', 0, 'ev', a.event)
  else announce(a.id, m, a.event) end
  return m
end
local function add_report(report, content)
  if not load_message(report.id) then add_recipients(report, add_message(report, content)) end
end
