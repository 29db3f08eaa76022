-- What sessions hold: slots, lanes, probe tokens. It hangs on their incarnation and returns with it:
-- set `ih:<holder>` of `s <token> <key>` (slot: set `sl:<key>`), `l <token> <lane>` (set `ls:<lane>`,
-- and `lw:<lane>` where its connection is known to work),
-- `p <token> <key>` (probe: field of breaker `br:<key>`).
local function is_leased(holder)
  local expiry = call('ZSCORE', P .. 'incarnations', holder)
  return expiry and tonumber(expiry) > 0
end
-- When a rate {key, interval_us, burst} would be used up (µs; GCRA), not before now. Later than a full
-- burst and a claim of 50 can make it is what another clock made it.
local function used_up_at(rate)
  local tat = math.max(tonumber(call('GET', P .. 'rt:' .. rate[1])) or 0, now * 1000)
  return math.min(tat, now * 1000 + (rate[3] + 50) * rate[2])
end
-- Since when (ms) this run of the server is up, as far as workers saw it; 0 in the first run of a store.
local function run_since()
  local run = string.match(call('INFO', 'server'), 'run_id:(%x+)') or ''
  local known = call('HMGET', P .. 'meta', 'run_id', 'run_since')
  if known[1] == run then return tonumber(known[2]) end
  local since = known[1] and now or 0
  call('HSET', P .. 'meta', 'run_id', run, 'run_since', since)
  return since
end
-- The lane that has waited longest for a slot of this key may try again.
local function wake_waiter(key)
  while true do
    local lane = call('ZPOPMIN', P .. 'wt:' .. key)[1]
    if not lane then return end
    if lane_has_queues(lane) then
      unpark_lane(lane)
      want(lane)
      return
    end
  end
end
local function give_back(holder, entry)
  local kind, token, key = string.match(entry, '^(%a) (%S+) (.*)$')
  call('SREM', P .. 'ih:' .. holder, entry)
  if kind == 's' then
    if call('SREM', P .. 'sl:' .. key, token) == 1 then wake_waiter(key) end
  elseif kind == 'p' then
    if call('HGET', P .. 'br:' .. key, 'probe') == token then
      call('HSET', P .. 'br:' .. key, 'probe', '')
    end
  else
    call('SREM', P .. 'lw:' .. key, token)
    if call('SREM', P .. 'ls:' .. key, token) == 1 and lane_has_queues(key) then want(key) end
  end
end
