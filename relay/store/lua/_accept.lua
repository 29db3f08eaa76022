-- Put one message into the store; also how settle and expire enqueue DSNs.
-- a: id, m (packed record), class, tenant, campaign, created is `now`, expires_s, notice_s, count,
--    first (number of the first recipient of this chunk), rcpt {{address, destination}…}, staged.
-- Returns the number of recipients that were new.
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
  for q, rids in pairs(by_queue) do
    if redis.call('EXISTS', qkey(q)) == 0 then create_queue(q) end
    push_ready(q, rids, 'r')
    shift(q, 'r', #rids)
  end
  redis.call('HINCRBY', message_key(a.id), 'o', new)
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
  redis.call('HSET', message_key(a.id), 'm', cmsgpack.pack(m))
  redis.call('SET', content_key(a.id), content)
  redis.call('ZADD', P .. 'deadlines', first_deadline(m), a.id)
  count('counters', 'messages:' .. a.ingress, 1)
  count('counters', 'accepted:' .. a.ingress .. ':' .. m[M_CLASS], m[M_COUNT])
  count('minute:' .. math.floor(now / 60000), 'accepted', m[M_COUNT])
  return m
end
