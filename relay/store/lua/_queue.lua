-- Queues, lanes and who wants a session. A queue is active in its lane while it has ready
-- recipients and nothing parks it; everything that changes that ends in `activate(q)`.
--   q:<q>      hash: r y d h c (recipients ready, ready to retry, deferred, held, claimed),
--              on (lane it is active in), su si (suspended until, by), pu pr pt (parked until, why),
--              n (1: mail came once, 2: more often)
--   q:<q>:r    list of recipient-ids, first attempts      q:<q>:y  list, retries
--   q:<q>:d    zset recipient-id -> due ms                q:<q>:h  zset held since
--   queues     zset of all names      dest:<d>  zset of a destination's queues
--   ro:<d>     msgpack {lane, fresh, stale, fails, until, reason, text}, expiring
--   unrouted   zset destination -> asked at, or when it is handed out again
--   ln:<lane>  hash: vt, vb (least virtual time), seq, k (claims), pu pr pt (parked), site (record),
--              op (until when its first session may take to open)
--   lt:<lane>, lb:<lane> zset tenant -> virtual time; lq:<lane>:<class>:<tenant> zset queue -> seq
--   wanting:<pool> zset lane -> since, or when it is handed out again   ls:<lane> set of its sessions' tokens
--   lw:<lane> set of those that work   lx:<lane> how many in a row met silence
--   timers     zset `q:…|l:…|d:…|s:…` (queue, lane, destination, suspension) -> ms
-- A queue with ready mail is in its lane, or on a timer, or its destination is unrouted or on a
-- timer. A lane with queues is wanting, or on a timer, or has a session. So nothing is forgotten.
local function qkey(q) return P .. 'q:' .. q end
local function lane_key(lane) return P .. 'ln:' .. lane end
-- Queues and lanes as this call knows them: read once; what it changes is written once, at the end.
local queues, lanes, routes, touched, wanted
-- Claims and messages that end in this call: entries of sets, removed with one command each.
local let_go, ended
-- The tick drops empty queues; others leave a queue that mail came to more than once for a while.
local drops_empty
begin_queues = function()
  queues, lanes, routes, touched, wanted = {}, {}, {}, {}, {}
  let_go, ended, drops_empty = {}, {}, false
end
local function change(known, field, value)
  known[field] = value
  known.changed[field] = true
end
local function write_changes(key, known)
  local fields, n = {}, 0
  for field in pairs(known.changed) do
    local value = known[field]
    if type(value) == 'number' and value % 1 == 0 then value = whole(value) end
    fields[n + 1], fields[n + 2], n = field, value, n + 2
  end
  if n > 0 then
    call('HSET', key, unpack(fields))
    known.changed = {}
  end
end
local function queue(q)
  local known = queues[q]
  if not known then
    local h = call('HMGET', qkey(q), 'r', 'y', 'd', 'h', 'c', 'su', 'pu', 'on', 'n')
    known = { r = tonumber(h[1]) or 0, y = tonumber(h[2]) or 0, d = tonumber(h[3]) or 0, h = tonumber(h[4]) or 0,
      c = tonumber(h[5]) or 0, su = tonumber(h[6]) or 0, pu = tonumber(h[7]) or 0, on = h[8] or '',
      n = tonumber(h[9]) or 0, changed = {} }
    known.exists = h[1] or h[2] or h[3] or h[4] or h[5] or h[6] or h[7] or h[8]
    queues[q] = known
  end
  return known
end
local function lane_record(lane)
  local known = lanes[lane]
  if not known then
    local h = call('HMGET', lane_key(lane), 'vt', 'vb', 'seq', 'k', 'pu', 'op')
    known = { vt = tonumber(h[1]) or 0, vb = tonumber(h[2]) or 0, seq = tonumber(h[3]) or 0,
      k = tonumber(h[4]) or 0, pu = tonumber(h[5]) or 0, op = tonumber(h[6]) or 0, changed = {} }
    lanes[lane] = known
  end
  return known
end
local function counted_up(known, field)
  change(known, field, known[field] + 1)
  return known[field]
end
local function set_timer(name, at)
  local present = call('ZSCORE', P .. 'timers', name)
  if not present or tonumber(present) > at then call('ZADD', P .. 'timers', whole(at), name) end
end
local function pool_of(lane) return string.match(lane, '^[^|]*|([^|]*)|') or 'default' end
local function route_of(destination)
  local known = routes[destination]
  if known == nil then
    local raw = call('GET', P .. 'ro:' .. destination)
    known = raw and cmsgpack.unpack(raw)
    routes[destination] = known
  end
  return known
end
local function ask_route(destination)
  -- On a timer: the last look-up failed, the next one has its time.
  if call('ZSCORE', P .. 'timers', 'd:' .. destination) then return end
  call('ZADD', P .. 'unrouted', 'NX', stamp, destination)
  wake_route()
end
local function lane_has_queues(lane)
  return call('EXISTS', P .. 'lt:' .. lane, P .. 'lb:' .. lane) > 0
end
local function sessions_of(lane) return call('SCARD', P .. 'ls:' .. lane) end
-- While a lane's only session is being opened no other is asked for: that one will claim what came,
-- and a peer that never speaks would get one after another.
local OPENING_MS = 5000
local function is_opening(lane) return lane_record(lane).op > now and sessions_of(lane) > 0 end
local function begin_opening(lane)
  lane_record(lane).op = now + OPENING_MS
  call('HSET', lane_key(lane), 'op', now + OPENING_MS)
end
local function end_opening(lane)
  local record = lane_record(lane)
  if record.op > 0 then change(record, 'op', 0) end
end
-- A lane that was handed out already and wants again is handed out again at once (LT).
local function want(lane)
  if wanted[lane] or lane_record(lane).pu > now or is_opening(lane) then return end
  wanted[lane] = true
  call('ZADD', P .. 'wanting:' .. pool_of(lane), 'LT', stamp, lane)
  wake_pool(pool_of(lane))
end
local function want_no_more(lane)
  wanted[lane] = nil
  call('ZREM', P .. 'wanting:' .. pool_of(lane), lane)
end
local function park_lane(lane, until_ms, reason, text)
  lane_record(lane).pu = until_ms
  call('HSET', lane_key(lane), 'pu', until_ms, 'pr', reason, 'pt', text)
  want_no_more(lane)
  set_timer('l:' .. lane, until_ms)
end
local function unpark_lane(lane)
  lane_record(lane).pu = 0
  call('HDEL', lane_key(lane), 'pu', 'pr', 'pt')
end
local function tenants_key(lane, class) return P .. 'l' .. class .. ':' .. lane end
local function lane_queues_key(lane, class, tenant)
  return P .. 'lq:' .. lane .. ':' .. class .. ':' .. tenant
end
local function leave_lane(q, lane)
  local class, tenant = class_and_tenant_of(q)
  local members = lane_queues_key(lane, class, tenant)
  call('ZREM', members, q)
  if call('EXISTS', members) == 0 then
    call('ZREM', tenants_key(lane, class), tenant)
    if not lane_has_queues(lane) then want_no_more(lane) end
  end
end
local function join_lane(q, lane)
  local class, tenant = class_and_tenant_of(q)
  local tenants, record = tenants_key(lane, class), lane_record(lane)
  if not call('ZSCORE', tenants, tenant) then
    -- A newcomer starts at the present minimum: it neither waits nor takes over.
    local least = call('ZRANGE', tenants, 0, 0, 'WITHSCORES')[2] or record['v' .. class]
    call('ZADD', tenants, least, tenant)
  end
  call('ZADD', lane_queues_key(lane, class, tenant), whole(counted_up(record, 'seq')), q)
end
local function deactivate(q)
  local known = queue(q)
  if known.on ~= '' then
    leave_lane(q, known.on)
    change(known, 'on', '')
  end
end
local EMPTY_KEPT_MS = 5000
-- Whether the queue is empty: then it goes, at once or by the tick.
local function end_if_empty(q)
  local known = queue(q)
  if known.r + known.y + known.d + known.h + known.c ~= 0 then return false end
  deactivate(q)
  if known.n > 1 and not drops_empty then
    set_timer('q:' .. q, now + EMPTY_KEPT_MS)
    return true
  end
  queues[q] = nil
  call('UNLINK', qkey(q), qkey(q) .. ':r', qkey(q) .. ':y', qkey(q) .. ':d', qkey(q) .. ':h')
  call('ZREM', P .. 'queues', q)
  call('ZREM', P .. 'timers', 'q:' .. q)
  call('ZREM', P .. 'dest:' .. destination_of_queue(q), q)
  return true
end
-- Put the queue where it belongs now: into its lane, on a timer, or to be routed.
local function activate(q)
  local known = queue(q)
  if known.r + known.y <= 0 then return deactivate(q) end
  local blocked = math.max(known.su, known.pu)
  if blocked > now then
    deactivate(q)
    set_timer('q:' .. q, blocked)
    return
  end
  local destination = destination_of_queue(q)
  local route = route_of(destination)
  if not route or route.lane == '' or route.stale <= now then
    deactivate(q)
    if not (route and route['until'] > now) then ask_route(destination) end
    return
  end
  if route.fresh <= now then ask_route(destination) end
  if known.on ~= route.lane then
    deactivate(q)
    join_lane(q, route.lane)
    change(known, 'on', route.lane)
  end
  want(route.lane)
end
-- Suspensions apply to queues that come into being later, too; that of a domain to all its mail.
local function matches(match, q)
  local class, tenant, campaign, destination = string.match(q, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return (match[1] == '' or match[1] == class) and (match[2] == '' or match[2] == tenant)
    and (match[3] == '' or match[3] == campaign) 
    and (match[4] == '' or match[4] == destination or '~' .. match[4] == destination)
end
-- The longest suspension in force that fits the queue, if any, becomes the queue's.
local function apply_suspensions(q)
  local until_ms, by = now, nil
  local suspensions = call('HGETALL', P .. 'suspensions')
  for i = 1, #suspensions, 2 do
    local s = cmsgpack.unpack(suspensions[i + 1])
    if s['until'] > until_ms and matches(s.match, q) then until_ms, by = s['until'], suspensions[i] end
  end
  queue(q).su = by and until_ms or 0
  if by then call('HSET', qkey(q), 'su', until_ms, 'si', by)
  else call('HDEL', qkey(q), 'su', 'si') end
end
local function create_queue(q)
  call('ZADD', P .. 'queues', 0, q)
  call('ZADD', P .. 'dest:' .. destination_of_queue(q), 0, q)
  apply_suspensions(q)
  queue(q).exists = true
end
local function shift(q, field, by)
  local known = queue(q)
  change(known, field, known[field] + by)
  touched[q] = true
end
-- Recipients that are new to the queue, ready for their first attempt.
local function make_ready(q, rids)
  local known = queue(q)
  if not known.exists then create_queue(q) end
  if known.n < 2 then counted_up(known, 'n') end
  for i = 1, #rids, 1000 do
    call('RPUSH', qkey(q) .. ':r', unpack(rids, i, math.min(i + 999, #rids)))
  end
  shift(q, 'r', #rids)
end
local function remove_ended()
  for key, members in pairs(let_go) do
    for i = 1, #members, 1000 do call('SREM', key, unpack(members, i, math.min(i + 999, #members))) end
  end
  if #ended > 0 then
    call('ZREM', P .. 'deadlines', unpack(ended))
    local scored = {}
    for i, id in ipairs(ended) do scored[2 * i - 1], scored[2 * i] = stamp, id end
    call('ZADD', P .. 'finished', unpack(scored))
  end
  let_go, ended = {}, {}
end
-- The end of every script that moved mail: touched queues are activated, or go when empty; what
-- was gathered is written.
local function settle_queues()
  flush_counters()
  remove_ended()
  for q in pairs(touched) do
    if not end_if_empty(q) then activate(q) end
  end
  touched = {}
  for q, known in pairs(queues) do write_changes(qkey(q), known) end
  for lane, known in pairs(lanes) do write_changes(lane_key(lane), known) end
end
