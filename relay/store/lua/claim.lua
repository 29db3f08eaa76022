#!lua flags=allow-oom
-- Lease ready recipients of one queue of a lane to a session.
-- KEYS: [1] meta. ARGV: [1] {lane, holder, n, octets, rates {{key, interval_us, burst}…}, inline}.
-- Returns {status, backlog, wait until ms, reason, queue, (id, packed m, content, packed recipients)…}
--   status: 'ok' | 'empty' | 'wait' | 'lost' (the holder's lease ran out). content is '' above
--   `inline` octets (read it beside). recipients: {{n, address, destination, attempt, step}…}.
-- Invariants: transactional before bulk, bulk at least 1 claim in 10; least virtual time first among
--   tenants, round robin among a tenant's queues; first attempts before retries, retries 1 in 4;
--   a recipient lost 3 times is claimed alone, by a holder that has no other such; attempt and claims are written before the lease is
--   answered. Blocked queues leave the lane for a timer. A message whose recipients stand together
--   is claimed with all of them, up to 50, above n too: one transaction takes them.
-- Bound: 8 queues, 200 stale entries, n recipients (at most 50; beyond n only of the last message).
local lane, key = req.lane, P .. 'ln:' .. req.lane
if not is_leased(req.holder) then return { 'lost', 0, 0, '' } end
local MAX_QUEUES, MAX_STALE, MAX_RECIPIENTS = 8, 200, 50
local SUSPECT_REST_MS = 1000
local allowed, wait_until = req.n, 0
for _, rate in ipairs(req.rates) do
  local tat = math.max(tonumber(redis.call('GET', P .. 'rt:' .. rate[1])) or 0, now * 1000)
  local room = math.floor((now * 1000 + rate[3] * rate[2] - tat) / rate[2])
  if room < 1 then wait_until = math.max(wait_until, math.ceil((tat - (rate[3] - 1) * rate[2]) / 1000)) end
  allowed = math.min(allowed, room)
end
if allowed < 1 then return { 'wait', 0, wait_until, 'message_rate' } end

local function pick(class)
  local tenant = redis.call('ZRANGE', tenants_key(lane, class), 0, 0)[1]
  if not tenant then return nil end
  local q = redis.call('ZRANGE', lane_queues_key(lane, class, tenant), 0, 0)[1]
  if not q then redis.call('ZREM', tenants_key(lane, class), tenant) end
  return tenant, q
end
-- Whether the queue may be claimed from here; else it is put where it belongs.
local function is_open(q)
  local h = redis.call('HMGET', qkey(q), 'su', 'pu', 'r', 'y')
  local blocked = math.max(tonumber(h[1]) or 0, tonumber(h[2]) or 0)
  local route = route_of(destination_of_queue(q))
  if blocked > now or not route or route.lane ~= lane or route.stale <= now
    or (tonumber(h[3]) or 0) + (tonumber(h[4]) or 0) <= 0 then
    redis.call('HSET', qkey(q), 'on', '')
    leave_lane(q, lane)
    activate(q)
    return false
  end
  if route.fresh <= now then ask_route(destination_of_queue(q)) end
  return true
end
local stale, taken, octets, messages, order, put_off = 0, 0, 0, {}, {}, false
-- What to do with a recipient that may end its worker; nil: claim it.
local function suspect()
  if taken > 0 then return 'full' end
  if redis.call('EXISTS', P .. 'ia:' .. req.holder) == 0 then return nil end
  stale = stale + 1
  put_off = true
  return 'later'
end
local function claim_one(q, rid)
  local id, n = split_rid(rid)
  local known = messages[id]
  local m, raw = nil, nil
  if known then m = known.m else m, raw = load_message(id) end
  local rec = m and load_recipient(id, n)
  if not rec or rec[STATE] ~= 'r' then stale = stale + 1; return 'stale' end
  local other = rec[CLAIMS] >= SUSPECT_CLAIMS and suspect()
  if other then return other end
  if not known then
    if taken > 0 and octets + m[M_SIZE] > req.octets then return 'full' end
    octets = octets + m[M_SIZE]
  end
  shift(q, field_of(rec), -1)
  rec[STATE] = 'c'
  rec[ATTEMPT] = rec[ATTEMPT] + 1
  rec[CLAIMS] = rec[CLAIMS] + 1
  rec[HOLDER] = req.holder
  save_recipient(id, n, rec)
  redis.call('SADD', P .. 'ic:' .. req.holder, rid)
  shift(q, 'c', 1)
  count_state('r', -1)
  count_state('c', 1)
  if not known then
    known = { m = m, raw = raw, recs = {} }
    messages[id] = known
    order[#order + 1] = id
  end
  known.recs[#known.recs + 1] = { n, rec[ADDRESS], destination_of(rec), rec[ATTEMPT], rec[STEP] }
  taken = taken + 1
  if rec[CLAIMS] <= SUSPECT_CLAIMS then return 'ok' end
  redis.call('SET', P .. 'ia:' .. req.holder, rid)
  return 'alone'
end
local function claim_list(q, list, want_n)
  local rids = redis.call('LPOP', list, want_n)
  if not rids then return 'empty' end
  for i, rid in ipairs(rids) do
    local got = claim_one(q, rid)
    if got == 'later' then redis.call('RPUSH', list, rid) end
    if got == 'full' or got == 'alone' then
      local rest = got == 'full' and i or i + 1
      for back = #rids, rest, -1 do redis.call('LPUSH', list, rids[back]) end
      return 'full'
    end
  end
  return put_off and taken == 0 and 'later' or 'ok'
end
-- The recipients of the last message that stand at the head of the list go along.
local function claim_rest(q, list)
  while taken < MAX_RECIPIENTS and stale < MAX_STALE do
    local rid = redis.call('LINDEX', list, 0)
    if not rid or split_rid(rid) ~= order[#order] or claim_list(q, list, 1) == 'full' then return end
  end
end
local function claim_queue(q, turn)
  local first, second = qkey(q) .. ':r', qkey(q) .. ':y'
  if turn % 4 == 0 then first, second = second, first end
  for _, list in ipairs({ first, second }) do
    while taken < allowed and stale < MAX_STALE do
      local got = claim_list(q, list, allowed - taken)
      if got == 'full' then return end
      if got == 'empty' or got == 'later' then break end
      if taken >= allowed then claim_rest(q, list) end
    end
  end
end

local turn = redis.call('HINCRBY', key, 'k', 1)
local classes = turn % 10 == 0 and { 'b', 't' } or { 't', 'b' }
local queue, looked = nil, 0
for _, class in ipairs(classes) do
  while taken == 0 and looked < MAX_QUEUES and stale < MAX_STALE do
    local tenant, q = pick(class)
    if not tenant then break end
    looked = looked + 1
    if q and is_open(q) then
      claim_queue(q, turn)
      if taken > 0 then
        queue = q
        local weight = tonumber(redis.call('HGET', P .. 'weights', tenant)) or 1
        local at = redis.call('ZINCRBY', tenants_key(lane, class), taken / weight, tenant)
        redis.call('HSET', key, 'v' .. class, at)
        redis.call('ZADD', lane_queues_key(lane, class, tenant), redis.call('HINCRBY', key, 'seq', 1), q)
      elseif put_off then
        redis.call('HSET', qkey(q), 'pu', now + SUSPECT_REST_MS, 'pr', 'suspect',
          'pt', 'what is left has ended its worker again and again and is tried one at a time')
        activate(q)
        put_off = false
      elseif stale < MAX_STALE then
        -- Counts say ready, lists are empty: impossible while invariant (b) holds. Leave the lane
        -- rather than spin; `doctor --store` reports it.
        redis.call('HSET', qkey(q), 'on', '')
        leave_lane(q, lane)
      end
    end
  end
  if taken > 0 then break end
end
settle_queues()
for _, rate in ipairs(req.rates) do
  local tat = math.max(tonumber(redis.call('GET', P .. 'rt:' .. rate[1])) or 0, now * 1000) + taken * rate[2]
  redis.call('SET', P .. 'rt:' .. rate[1], string.format('%.0f', tat), 'PX', math.ceil(tat / 1000 - now) + 1000)
end
local backlog = 0
if queue then
  local left = redis.call('HMGET', qkey(queue), 'r', 'y')
  backlog = (tonumber(left[1]) or 0) + (tonumber(left[2]) or 0)
end
if backlog == 0 and lane_has_queues(lane) then backlog = 1 end
if taken == 0 then
  if backlog > 0 then return { 'ok', backlog, 0, '', '' } end
  return { 'empty', 0, 0, '', '' }
end
local reply = { 'ok', backlog, 0, '', queue }
for _, id in ipairs(order) do
  local known = messages[id]
  local content = ''
  if known.m[M_SIZE] <= req.inline then content = redis.call('GET', content_key(id)) or '' end
  reply[#reply + 1] = id
  reply[#reply + 1] = known.raw
  reply[#reply + 1] = content
  reply[#reply + 1] = cmsgpack.pack(known.recs)
end
return reply
