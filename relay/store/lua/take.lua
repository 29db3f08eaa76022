#!lua flags=allow-oom
-- Take every slot that a session needs, all or none.
-- KEYS: [1] meta. ARGV: [1] {lane, holder (incarnation), token, slots {{key, ceiling}…},
--   windows {key = initial}, rates {{key, interval_us, burst}…}, breakers {key…}}.
-- Returns {'ok', probing (1|0)} | {'idle'} | {'no', binding key, limit, until ms, reason}.
-- Invariants: slots and lane hang on their holder and return with it; a half-open breaker lets one
--   probe through, at the breaker of a feedback window too; a refused lane without a session is parked
--   and waits in the order of asking (`wt:<key>`), with a timer as a net; a holder whose lease is gone
--   gets nothing, for nothing of it would return; the same token again takes nothing more.
-- Bound: O(keys of the request), at most 32.
local PROBE_AGAIN_MS, SLOT_AGAIN_MS = 2000, 5000
local lane, token = req.lane, req.token
local function refuse(key, limit, until_ms, reason)
  -- A lane that has a session is not put to rest: new mail may still wake that one.
  if sessions_of(lane) == 0 then park_lane(lane, until_ms, reason, key)
  else want_no_more(lane) end
  return { 'no', key, limit, until_ms, reason }
end
local breakers = {}
for _, key in ipairs(req.breakers) do breakers[#breakers + 1] = key end
for key in pairs(req.windows) do
  local known = false
  for _, other in ipairs(breakers) do known = known or other == key end
  if not known then breakers[#breakers + 1] = key end
end
if call('SISMEMBER', P .. 'ls:' .. lane, token) == 1 then
  local probing = 0
  for _, key in ipairs(breakers) do
    if call('HGET', P .. 'br:' .. key, 'probe') == token then probing = 1 end
  end
  return { 'ok', probing }
end
if not lane_has_queues(lane) then return { 'idle' } end
if not is_leased(req.holder) then return { 'no', req.holder, 0, now + 1000, 'lease_lost' } end
local probing = {}
for _, key in ipairs(breakers) do
  local b = call('HMGET', P .. 'br:' .. key, 'until', 'probe', 'reason')
  if b[1] then
    if tonumber(b[1]) > now then return refuse(key, 0, tonumber(b[1]), b[3] or 'breaker_open') end
    if b[2] and b[2] ~= '' then return refuse(key, 1, now + PROBE_AGAIN_MS, 'breaker_probing') end
    probing[#probing + 1] = key
  end
end
for _, slot in ipairs(req.slots) do
  local key, ceiling = slot[1], slot[2]
  if req.windows[key] then
    local window = tonumber(call('HGET', P .. 'fb:' .. key, 'window')) or req.windows[key]
    ceiling = math.min(ceiling, math.floor(window))
  end
  if call('SCARD', P .. 'sl:' .. key) >= ceiling then
    call('ZADD', P .. 'wt:' .. key, 'NX', now, lane)
    return refuse(key, ceiling, now + SLOT_AGAIN_MS, 'connection_limit')
  end
end
local now_us = now * 1000
for _, rate in ipairs(req.rates) do
  local tat = used_up_at(rate)
  local wait = tat + rate[2] - rate[3] * rate[2] - now_us
  if wait > 0 then
    return refuse(rate[1], rate[2], now + math.ceil(wait / 1000), 'connection_rate')
  end
end
for _, rate in ipairs(req.rates) do
  local tat = used_up_at(rate) + rate[2]
  call('SET', P .. 'rt:' .. rate[1], string.format('%.0f', tat), 'PX',
    math.ceil((tat - now_us) / 1000) + 1000)
end
local held = { 'l ' .. token .. ' ' .. lane }
for _, slot in ipairs(req.slots) do
  call('SADD', P .. 'sl:' .. slot[1], token)
  call('ZREM', P .. 'wt:' .. slot[1], lane)
  held[#held + 1] = 's ' .. token .. ' ' .. slot[1]
end
for _, key in ipairs(probing) do
  call('HSET', P .. 'br:' .. key, 'probe', token)
  held[#held + 1] = 'p ' .. token .. ' ' .. key
end
if sessions_of(lane) == 0 then begin_opening(lane) end
call('SADD', P .. 'ls:' .. lane, token)
call('SADD', P .. 'ih:' .. req.holder, unpack(held))
want_no_more(lane)
return { 'ok', #probing > 0 and 1 or 0 }
