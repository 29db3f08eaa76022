#!lua flags=allow-oom
-- What time brings: due recipients, parked queues, lanes and destinations, dead incarnations.
-- KEYS: [1] meta. ARGV: [1] {holder, limit, grace_ms (a lease and 15 s), keep (events), pools {…}, uncertain {t, b = policy},
--   expected (what the clock must show, ms; 0: unknown), undo {from, by} (a step of Redis' clock that was seen), slew_ms}.
-- Returns {'busy', now ms, shown ms} when another ticker acts, {'stepped', now, shown, step_ms} when the clock does not show
--   what is expected, and nothing was done; else {'ok', now ms, shown ms, worked (items), next timer ms, due messages
--   (deadlines), ids being committed, suspensions that are being put into force or ended, rids held as poison}.
-- Invariants: two tickers at once do no harm (each step is by itself); promoted recipients enter the
--   retry list in order of their due time; a dead holder's recipients come back to the front with
--   their lost claim counted; after a restart of Redis nothing is reclaimed for grace_ms; a step of
--   Redis' clock is undone (meta.step_ms) before it has ended a lease, and let in again by slew_ms a call.
-- Bound: O(limit), at most 500 recipients, 100 timers.
local LOCK_MS, STEP_MS = 1500, 5000
local lock = call('GET', P .. 'ticker')
-- One that lives longer than it was given to is of a clock that was put back.
if lock and lock ~= req.holder and call('PTTL', P .. 'ticker') <= LOCK_MS then return { 'busy', now, shown } end
call('SET', P .. 'ticker', req.holder, 'PX', LOCK_MS)
local function set_step(to)
  now, shown = now + to - step, shown + to - step
  stamp, step = whole(now), to
  call('HSET', KEYS[1], 'step_ms', to)
end
if req.undo and req.undo.from == step then
  set_step(step + req.undo.by)
  -- Who renewed meanwhile did so by the other clock.
  for _, holder in ipairs(call('ZRANGEBYSCORE', P .. 'incarnations', '(0', '+inf')) do
    call('ZADD', P .. 'incarnations', now + req.grace_ms, holder)
  end
  call('DEL', P .. 'woken:route')
  for _, pool in ipairs(req.pools) do call('DEL', P .. 'woken:egress.' .. pool) end
elseif req.expected > 0 and math.abs(shown - req.expected) > STEP_MS then
  return { 'stepped', now, shown, step }
elseif step ~= 0 then
  set_step(step > 0 and math.max(step - req.slew_ms, 0) or math.min(step + req.slew_ms, 0))
end
local budget = req.limit
drops_empty = true

local function promote(q)
  local due = call('ZRANGEBYSCORE', qkey(q) .. ':d', '-inf', now, 'LIMIT', 0, budget)
  for _, rid in ipairs(due) do
    local id, n = split_rid(rid)
    local rec = load_recipient(id, n)
    call('ZREM', qkey(q) .. ':d', rid)
    if rec and rec[STATE] == 'd' then
      shift(q, 'd', -1)
      count_state('d', -1)
      enter_ready(q, rid, rec, false)
      save_recipient(id, n, rec)
    end
  end
  budget = budget - #due
  local next_due = call('ZRANGE', qkey(q) .. ':d', 0, 0, 'WITHSCORES')
  if next_due[2] then set_timer('q:' .. q, math.max(tonumber(next_due[2]), now + (budget > 0 and 0 or 1))) end
  touched[q] = true
end
local fired = {
  q = function(q)
    local known = queue(q)
    if not known.exists then return end
    if known.su > 0 and known.su <= now then apply_suspensions(q) end
    if known.pu > 0 and known.pu <= now then
      known.pu = 0
      call('HDEL', qkey(q), 'pu', 'pr', 'pt')
    end
    promote(q)
  end,
  l = function(lane)
    local parked = lane_record(lane).pu
    if parked > now then set_timer('l:' .. lane, parked); return end
    unpark_lane(lane)
    if lane_has_queues(lane) then want(lane) end
  end,
  d = function(destination)
    if call('EXISTS', P .. 'dest:' .. destination) == 1 then ask_route(destination) end
  end,
  s = function(id) call('HDEL', P .. 'suspensions', id) end,
}
local worked = 0
local timers = call('ZRANGEBYSCORE', P .. 'timers', '-inf', now, 'LIMIT', 0, 100)
for _, name in ipairs(timers) do
  if budget <= 0 then break end
  call('ZREM', P .. 'timers', name)
  fired[string.sub(name, 1, 1)](string.sub(name, 3))
  worked = worked + 1
end
settle_queues()

-- From now on the lease cannot be revived: what it held is given to others.
local BEING_RECLAIMED, UNHEARD = -1, -2
local function reclaim(holder, expiry)
  expiry = tonumber(expiry)
  -- It did not renew since the server restarted: they may have died together.
  local unheard = expiry == UNHEARD or expiry > 0 and expiry - (req.grace_ms - 15000) < run_since()
  -- Score 0: it ended its lease itself, nothing was lost.
  if expiry > 0 then
    call('ZADD', P .. 'incarnations', unheard and UNHEARD or BEING_RECLAIMED, holder)
    emit('worker.lost', holder, cmsgpack.pack({ incarnation = holder }))
  end
  local rids = call('SRANDMEMBER', P .. 'ic:' .. holder, math.max(budget, 1))
  table.sort(rids, function(a, b) return a > b end)  -- each goes to the front: the oldest comes last
  for _, rid in ipairs(rids) do come_back(holder, rid, req.uncertain, unheard) end
  for _, entry in ipairs(call('SRANDMEMBER', P .. 'ih:' .. holder, 500)) do give_back(holder, entry) end
  budget = budget - #rids
  worked = worked + #rids + 1
  remove_ended()
  if call('EXISTS', P .. 'ic:' .. holder, P .. 'ih:' .. holder) == 0 then
    call('DEL', P .. 'is:' .. holder, P .. 'iv:' .. holder, P .. 'ia:' .. holder)
    call('ZREM', P .. 'incarnations', holder)
    call('HDEL', P .. 'workers', holder)
  end
end
local dead = call('ZRANGEBYSCORE', P .. 'incarnations', '-inf', now, 'WITHSCORES', 'LIMIT', 0, 4)
-- After a restart of the server nobody could renew: everyone gets the time to do so.
if #dead > 0 and now >= run_since() + req.grace_ms then
  for i = 1, #dead, 2 do
    reclaim(dead[i], dead[i + 1])
    if budget <= 0 then break end
  end
  settle_queues()
end
-- Tasks are hints that may be lost: post them again while there is work.
for _, pool in ipairs(req.pools) do
  if call('ZCOUNT', P .. 'wanting:' .. pool, '-inf', now) > 0 then wake_pool(pool) end
end
if call('ZCOUNT', P .. 'unrouted', '-inf', now) > 0 then wake_route() end
-- Finished messages are kept for an hour, the newest 100,000 of them; events up to `keep`.
local gone = call('ZRANGEBYSCORE', P .. 'finished', '-inf', now - FINISHED_MS, 'LIMIT', 0, 500)
if #gone == 0 and call('ZCARD', P .. 'finished') > 100000 then
  gone = call('ZRANGE', P .. 'finished', 0, 499)
end
if #gone > 0 then call('ZREM', P .. 'finished', unpack(gone)) end
for _, id in ipairs(gone) do
  local m = load_message(id)
  if m then
    for first = m[M_COUNT], 1, -50 do call('UNLINK', bucket_key(id, first)) end
    call('UNLINK', message_key(id))
  end
end
-- The counters as they stood when a minute began: what a minute brought is the difference of two.
local minute = P .. 'minute:' .. math.floor(now / 60000)
if call('EXISTS', minute) == 0 then
  local counters = call('HGETALL', P .. 'counters')
  call('HSET', minute, 'at', now)
  for i = 1, #counters, 1000 do call('HSET', minute, unpack(counters, i, math.min(i + 999, #counters))) end
  call('PEXPIRE', minute, 172800000)
end
call('XTRIM', P .. 'events', 'MAXLEN', '~', req.keep, 'LIMIT', 1000)
local next_timer = call('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')[2]
local due = call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now, 'LIMIT', 0, 20)
return { 'ok', now, shown, worked, tonumber(next_timer or 0), due, call('SRANDMEMBER', P .. 'committing', 10),
  call('SRANDMEMBER', P .. 'suspending', 10), poisoned }
