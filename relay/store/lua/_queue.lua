-- Queues, lanes and who wants a session. A queue is active in its lane while it has ready
-- recipients and nothing parks it; everything that changes that ends in `activate(q)`.
--   q:<q>      hash: r y d h c (recipients ready, ready to retry, deferred, held, claimed),
--              on (lane it is active in), su si (suspended until, by), pu pr pt (parked until, why)
--   q:<q>:r    list of recipient-ids, first attempts      q:<q>:y  list, retries
--   q:<q>:d    zset recipient-id -> due ms                q:<q>:h  zset held since
--   queues     zset of all names      dest:<d>  zset of a destination's queues
--   ro:<d>     msgpack {lane, fresh, stale, fails, until, reason, text}, expiring
--   unrouted   zset destination -> asked at, or when it is handed out again
--   ln:<lane>  hash: vt, vb (least virtual time), seq, k (claims), pu pr pt (parked), site (record)
--   lt:<lane>, lb:<lane> zset tenant -> virtual time; lq:<lane>:<class>:<tenant> zset queue -> seq
--   wanting:<pool> zset lane -> since, or when it is handed out again   ls:<lane> set of its sessions' tokens
--   timers     zset `q:…|l:…|d:…|s:…` (queue, lane, destination, suspension) -> ms
-- A queue with ready mail is in its lane, or on a timer, or its destination is unrouted or on a
-- timer. A lane with queues is wanting, or on a timer, or has a session. So nothing is forgotten.
local function qkey(q) return P .. 'q:' .. q end
local function set_timer(name, at)
  local present = redis.call('ZSCORE', P .. 'timers', name)
  if not present or tonumber(present) > at then redis.call('ZADD', P .. 'timers', at, name) end
end
local function pool_of(lane) return string.match(lane, '^[^|]*|([^|]*)|') or 'default' end
local function route_of(destination)
  local raw = redis.call('GET', P .. 'ro:' .. destination)
  if not raw then return nil end
  return cmsgpack.unpack(raw)
end
local function ask_route(destination)
  -- On a timer: the last look-up failed, the next one has its time.
  if redis.call('ZSCORE', P .. 'timers', 'd:' .. destination) then return end
  redis.call('ZADD', P .. 'unrouted', 'NX', now, destination)
  wake_route()
end
local function lane_has_queues(lane)
  return redis.call('EXISTS', P .. 'lt:' .. lane, P .. 'lb:' .. lane) > 0
end
local function sessions_of(lane) return redis.call('SCARD', P .. 'ls:' .. lane) end
-- A lane that was handed out already and wants again is handed out again at once (LT).
local function want(lane)
  local parked = redis.call('HGET', P .. 'ln:' .. lane, 'pu')
  if parked and tonumber(parked) > now then return end
  redis.call('ZADD', P .. 'wanting:' .. pool_of(lane), 'LT', now, lane)
  wake_pool(pool_of(lane))
end
local function park_lane(lane, until_ms, reason, text)
  redis.call('HSET', P .. 'ln:' .. lane, 'pu', until_ms, 'pr', reason, 'pt', text)
  redis.call('ZREM', P .. 'wanting:' .. pool_of(lane), lane)
  set_timer('l:' .. lane, until_ms)
end
local function tenants_key(lane, class) return P .. 'l' .. class .. ':' .. lane end
local function lane_queues_key(lane, class, tenant)
  return P .. 'lq:' .. lane .. ':' .. class .. ':' .. tenant
end
local function leave_lane(q, lane)
  local class, tenant = class_and_tenant_of(q)
  local queues = lane_queues_key(lane, class, tenant)
  redis.call('ZREM', queues, q)
  if redis.call('EXISTS', queues) == 0 then
    redis.call('ZREM', tenants_key(lane, class), tenant)
    if not lane_has_queues(lane) then
      redis.call('ZREM', P .. 'wanting:' .. pool_of(lane), lane)
    end
  end
end
local function join_lane(q, lane)
  local class, tenant = class_and_tenant_of(q)
  local tenants = tenants_key(lane, class)
  if not redis.call('ZSCORE', tenants, tenant) then
    -- A newcomer starts at the present minimum: it neither waits nor takes over.
    local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')[2]
      or redis.call('HGET', P .. 'ln:' .. lane, 'v' .. class) or 0
    redis.call('ZADD', tenants, least, tenant)
  end
  local seq = redis.call('HINCRBY', P .. 'ln:' .. lane, 'seq', 1)
  redis.call('ZADD', lane_queues_key(lane, class, tenant), seq, q)
end
local function deactivate(q, on)
  if on and on ~= '' then
    leave_lane(q, on)
    redis.call('HSET', qkey(q), 'on', '')
  end
end
local function drop_queue_if_empty(q)
  local n = redis.call('HMGET', qkey(q), 'r', 'y', 'd', 'h', 'c', 'on')
  for i = 1, 5 do if (tonumber(n[i]) or 0) ~= 0 then return false end end
  deactivate(q, n[6])
  redis.call('UNLINK', qkey(q), qkey(q) .. ':r', qkey(q) .. ':y', qkey(q) .. ':d', qkey(q) .. ':h')
  redis.call('ZREM', P .. 'queues', q)
  redis.call('ZREM', P .. 'timers', 'q:' .. q)
  local destination = destination_of_queue(q)
  redis.call('ZREM', P .. 'dest:' .. destination, q)
  return true
end
-- Put the queue where it belongs now: into its lane, on a timer, or to be routed.
local function activate(q)
  local h = redis.call('HMGET', qkey(q), 'r', 'y', 'su', 'pu', 'on')
  if (tonumber(h[1]) or 0) + (tonumber(h[2]) or 0) <= 0 then return deactivate(q, h[5]) end
  local blocked = math.max(tonumber(h[3]) or 0, tonumber(h[4]) or 0)
  if blocked > now then
    deactivate(q, h[5])
    set_timer('q:' .. q, blocked)
    return
  end
  local destination = destination_of_queue(q)
  local route = route_of(destination)
  if not route or route.lane == '' or route.stale <= now then
    deactivate(q, h[5])
    if not (route and route['until'] > now) then ask_route(destination) end
    return
  end
  if route.fresh <= now then ask_route(destination) end
  if h[5] ~= route.lane then
    deactivate(q, h[5])
    join_lane(q, route.lane)
    redis.call('HSET', qkey(q), 'on', route.lane)
  end
  want(route.lane)
end
-- Suspensions apply to queues that come into being later, too.
local function matches(match, q)
  local class, tenant, campaign, destination = string.match(q, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return (match[1] == '' or match[1] == class) and (match[2] == '' or match[2] == tenant)
    and (match[3] == '' or match[3] == campaign) and (match[4] == '' or match[4] == destination)
end
-- The longest suspension in force that fits the queue, if any, becomes the queue's.
local function apply_suspensions(q)
  local until_ms, by = now, nil
  local suspensions = redis.call('HGETALL', P .. 'suspensions')
  for i = 1, #suspensions, 2 do
    local s = cmsgpack.unpack(suspensions[i + 1])
    if s['until'] > until_ms and matches(s.match, q) then until_ms, by = s['until'], suspensions[i] end
  end
  if by then redis.call('HSET', qkey(q), 'su', until_ms, 'si', by)
  else redis.call('HDEL', qkey(q), 'su', 'si') end
end
local function create_queue(q)
  redis.call('ZADD', P .. 'queues', 0, q)
  redis.call('ZADD', P .. 'dest:' .. destination_of_queue(q), 0, q)
  apply_suspensions(q)
end
local function shift(q, field, by)
  count('q:' .. q, field, by)
  touched[q] = true
end
-- Recipients that are new to the queue, ready for their first attempt.
local function make_ready(q, rids)
  if redis.call('EXISTS', qkey(q)) == 0 then create_queue(q) end
  for i = 1, #rids, 1000 do
    redis.call('RPUSH', qkey(q) .. ':r', unpack(rids, i, math.min(i + 999, #rids)))
  end
  shift(q, 'r', #rids)
end
-- After flush_counters(): every touched queue is activated, or dropped when empty.
local function settle_queues()
  flush_counters()
  for q in pairs(touched) do
    if not drop_queue_if_empty(q) then activate(q) end
  end
  touched = {}
end
-- The queue's field that counts a record: r or y for ready, else its state.
local function field_of(rec)
  if rec[STATE] == 'r' then return rec[STEP] > 0 and 'y' or 'r' end
  return rec[STATE]
end
-- A recipient whose last claims were lost in a row, so many of them: perhaps it ends its workers. It is
-- claimed alone, and a holder has one such at a time: key `ia:<holder>`.
local SUSPECT_CLAIMS, POISON_CLAIMS = 3, 5
-- Take a live record out of the structure that its state names. List entries go stale instead
-- and are dropped when met (never LREM).
local function leave_state(q, rid, rec)
  shift(q, field_of(rec), -1)
  count_state(rec[STATE], -1)
  if rec[STATE] == 'd' then redis.call('ZREM', qkey(q) .. ':d', rid)
  elseif rec[STATE] == 'h' then redis.call('ZREM', qkey(q) .. ':h', rid)
  elseif rec[STATE] == 'c' then
    redis.call('SREM', P .. 'ic:' .. rec[HOLDER], rid)
    redis.call('SREM', P .. 'is:' .. rec[HOLDER], rid .. ':' .. rec[ATTEMPT])
    if rec[CLAIMS] > SUSPECT_CLAIMS then redis.call('DEL', P .. 'ia:' .. rec[HOLDER]) end
    rec[HOLDER] = ''
  end
end
local function enter_ready(q, rid, rec, at_front)
  rec[STATE] = 'r'
  rec[DUE] = 0
  local kind = field_of(rec)
  redis.call(at_front and 'LPUSH' or 'RPUSH', qkey(q) .. ':' .. kind, rid)
  shift(q, kind, 1)
  count_state('r', 1)
end
local function enter_deferred(q, rid, rec, due)
  rec[STATE] = 'd'
  rec[DUE] = due
  redis.call('ZADD', qkey(q) .. ':d', due, rid)
  set_timer('q:' .. q, due)
  shift(q, 'd', 1)
  count_state('d', 1)
end
local function enter_held(q, rid, rec, reason, text)
  rec[STATE] = 'h'
  rec[REASON] = reason
  rec[TEXT] = text
  redis.call('ZADD', qkey(q) .. ':h', now, rid)
  shift(q, 'h', 1)
  count_state('h', 1)
end
-- The end of a message: content goes, the record stays readable for an hour.
local FINISHED_MS = 3600000
local function end_message(id, m)
  redis.call('DEL', content_key(id))
  redis.call('ZREM', P .. 'deadlines', id)
  redis.call('ZADD', P .. 'finished', now, id)
  for first = 1, m[M_COUNT], 50 do redis.call('PEXPIRE', bucket_key(id, first), FINISHED_MS) end
end
-- The end of a recipient; the last one of a message ends the message.
local function finish(q, id, n, m, rec, state, reason, text)
  rec[STATE] = state
  rec[REASON] = reason
  rec[TEXT] = text
  rec[DUE] = now
  count_outstanding(destination_of(rec), m[M_CREATED], -1)
  shift(q, 'r', 0)
  save_recipient(id, n, rec)
  if redis.call('HINCRBY', message_key(id), 'o', -1) <= 0 then end_message(id, m) end
end
-- The end by an operator's order: `bt` of the message {text, actor}.
local function fail_by_order(q, id, n, m, rec)
  local order = cmsgpack.unpack(redis.call('HGET', message_key(id), 'bt'))
  finish(q, id, n, m, rec, 'F', 'bounced', order.text)
  count_outcome('failed', 'none')
  emit_recipient('recipient.failed', id, n, m, rec, { answer = rec[ANSWER], actor = order.actor })
end
-- Where the sender is to be told, the recipient is held, with the wish to bounce, until his report is
-- there (deadline.lua); `bo` counts how often that was asked for.
local function bounce(q, id, n, m, rec)
  if m[M_REVERSE] == '' or bit.band(m[M_FLAGS], FLAG_DSN) == 0 then return fail_by_order(q, id, n, m, rec) end
  enter_held(q, id .. '.' .. n, rec, 'bounced', cmsgpack.unpack(redis.call('HGET', message_key(id), 'bt')).text)
  rec[WISH] = 'bounce'
  save_recipient(id, n, rec)
  redis.call('HINCRBY', message_key(id), 'bo', 1)
  redis.call('ZADD', P .. 'deadlines', now, id)
end
