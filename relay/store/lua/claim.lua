#!lua flags=allow-oom
-- Lease ready recipients of one queue of a lane to a session.
-- KEYS: [1] meta. ARGV: [1] {lane, holder, n, octets, rates {{key, interval_us, burst}…}, inline}.
-- Returns {status, backlog, wait until ms, reason, queue, (id, packed m, content, packed recipients)…}
--   status: 'ok' | 'empty' | 'wait' | 'lost' (the holder's lease ran out). content is '' above
--   `inline` octets (read it beside). recipients: {{n, address, destination, attempt, step, dsn if any}…}.
-- Invariants: transactional before bulk, bulk at least 1 claim in 10; least virtual time first among
--   tenants, round robin among a tenant's queues; first attempts before retries, retries 1 in 4;
--   a recipient lost 3 times is claimed alone, by a holder that has no other such; attempt and claims are written before the lease is
--   answered. Blocked queues leave the lane for a timer. A message whose recipients stand together
--   is claimed with all of them, up to 50, above n too: one transaction takes them.
-- Bound: 8 queues, 200 stale entries, n recipients (at most 50; beyond n only of the last message).
local lane = req.lane
if not is_leased(req.holder) then return { 'lost', 0, 0, '' } end
local MAX_QUEUES, MAX_STALE, MAX_RECIPIENTS = 8, 200, 50
local SUSPECT_REST_MS = 1000
local allowed, wait_until = req.n, 0
for _, rate in ipairs(req.rates) do
  local tat = used_up_at(rate)
  local room = math.floor((now * 1000 + rate[3] * rate[2] - tat) / rate[2])
  if room < 1 then wait_until = math.max(wait_until, math.ceil((tat - (rate[3] - 1) * rate[2]) / 1000)) end
  allowed = math.min(allowed, room)
end
if allowed < 1 then return { 'wait', 0, wait_until, 'message_rate' } end

local function pick(class)
  local first = call('ZRANGE', tenants_key(lane, class), 0, 0, 'WITHSCORES')
  local tenant = first[1]
  if not tenant then return nil end
  local q = call('ZRANGE', lane_queues_key(lane, class, tenant), 0, 0)[1]
  if not q then call('ZREM', tenants_key(lane, class), tenant) end
  return tenant, q, tonumber(first[2])
end
-- Whether the queue may be claimed from here; else it is put where it belongs.
local function is_open(q)
  local known, destination = queue(q), destination_of_queue(q)
  local route = route_of(destination)
  if math.max(known.su, known.pu) > now or not route or route.lane ~= lane or route.stale <= now
    or known.r + known.y <= 0 then
    leave_lane(q, lane)
    change(known, 'on', '')
    activate(q)
    return false
  end
  if route.fresh <= now then ask_route(destination) end
  return true
end
local stale, taken, octets, messages, order, claims = 0, 0, 0, {}, {}, {}
local put_off = false
-- What to do with a recipient that may end its worker; nil: claim it.
local function suspect()
  if taken > 0 then return 'full' end
  if call('EXISTS', P .. 'ia:' .. req.holder) == 0 then return nil end
  stale = stale + 1
  put_off = true
  return 'later'
end
local function claim_one(q, rid)
  local id, n = split_rid(rid)
  local known = messages[id]
  local m, rec, raw, content
  if known then m, rec = known.m, load_recipient(id, n) else m, rec, raw, content = load_both(id, n) end
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
  claims[#claims + 1] = rid
  shift(q, 'c', 1)
  count_state('r', -1)
  count_state('c', 1)
  if not known then
    known = { m = m, raw = raw, content = content, recs = {} }
    messages[id] = known
    order[#order + 1] = id
  end
  known.recs[#known.recs + 1] = { n, rec[ADDRESS], destination_of(rec), rec[ATTEMPT], rec[STEP], rec[DSN] }
  taken = taken + 1
  if rec[CLAIMS] <= SUSPECT_CLAIMS then return 'ok' end
  call('SET', P .. 'ia:' .. req.holder, rid)
  return 'alone'
end
local function claim_list(q, list, want_n)
  local rids = call('LPOP', list, want_n)
  if not rids then return 'empty' end
  for i, rid in ipairs(rids) do
    local got = claim_one(q, rid)
    if got == 'later' then call('RPUSH', list, rid) end
    if got == 'full' or got == 'alone' then
      local rest = got == 'full' and i or i + 1
      for back = #rids, rest, -1 do call('LPUSH', list, rids[back]) end
      return 'full'
    end
  end
  return put_off and taken == 0 and 'later' or 'ok'
end
-- The recipients of the last message that stand at the head of the list go along.
local function claim_rest(q, list)
  while taken < MAX_RECIPIENTS and stale < MAX_STALE do
    local rid = call('LINDEX', list, 0)
    if not rid or split_rid(rid) ~= order[#order] or claim_list(q, list, 1) == 'full' then return end
  end
end
local function claim_queue(q, turn)
  local known = queue(q)
  for _, kind in ipairs(turn % 4 == 0 and { 'y', 'r' } or { 'r', 'y' }) do
    local list = qkey(q) .. ':' .. kind
    while taken < allowed and stale < MAX_STALE and known[kind] > 0 do
      local got = claim_list(q, list, allowed - taken)
      if got == 'full' then return end
      if got == 'empty' or got == 'later' then break end
      if taken >= allowed and known[kind] > 0 then claim_rest(q, list) end
    end
  end
end

local record = lane_record(lane)
local turn = counted_up(record, 'k')
end_opening(lane)
local from, tenants, tenant, reached, looked = nil, nil, nil, nil, 0
for _, class in ipairs(turn % 10 == 0 and { 'b', 't' } or { 't', 'b' }) do
  while taken == 0 and looked < MAX_QUEUES and stale < MAX_STALE do
    local who, q, at = pick(class)
    if not who then break end
    looked = looked + 1
    if q and is_open(q) then
      claim_queue(q, turn)
      local known = queue(q)
      if taken > 0 then
        from, tenants, tenant = q, tenants_key(lane, class), who
        reached = at + taken / (tonumber(call('HGET', P .. 'weights', who)) or 1)
        change(record, 'v' .. class, reached)
        if known.r + known.y > 0 then
          call('ZADD', lane_queues_key(lane, class, who), whole(counted_up(record, 'seq')), q)
        end
      elseif put_off then
        known.pu = now + SUSPECT_REST_MS
        call('HSET', qkey(q), 'pu', known.pu, 'pr', 'suspect',
          'pt', 'what is left has ended its worker again and again and is tried one at a time')
        activate(q)
        put_off = false
      elseif stale < MAX_STALE then
        -- Counts say ready, lists are empty: impossible while invariant (b) holds. Leave the lane
        -- rather than spin; `doctor --store` reports it.
        change(known, 'on', '')
        leave_lane(q, lane)
      end
    end
  end
  if taken > 0 then break end
end
if taken > 0 then call('SADD', P .. 'ic:' .. req.holder, unpack(claims)) end
settle_queues()
-- XX: unless the tenant left with its last queue.
if taken > 0 then call('ZADD', tenants, 'XX', reached, tenant) end
for _, rate in ipairs(req.rates) do
  local tat = used_up_at(rate) + taken * rate[2]
  call('SET', P .. 'rt:' .. rate[1], string.format('%.0f', tat), 'PX', math.ceil(tat / 1000 - now) + 1000)
end
local backlog = from and queue(from).r + queue(from).y or 0
if backlog == 0 and lane_has_queues(lane) then backlog = 1 end
if taken == 0 then
  if backlog > 0 then return { 'ok', backlog, 0, '', '' } end
  return { 'empty', 0, 0, '', '' }
end
local reply = { 'ok', backlog, 0, '', from }
for _, id in ipairs(order) do
  local known = messages[id]
  local content = known.content or ''
  if content == '' and known.m[M_SIZE] <= req.inline then content = call('GET', content_key(id)) or '' end
  reply[#reply + 1] = id
  reply[#reply + 1] = known.raw
  reply[#reply + 1] = content
  reply[#reply + 1] = cmsgpack.pack(known.recs)
end
return reply
