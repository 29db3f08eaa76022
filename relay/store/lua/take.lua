-- Take every slot that a session needs, all or none.
-- KEYS: [1] meta. ARGV: [1] {lane, holder (incarnation), token, slots {{key, ceiling}…},
--   windows {key = initial}, rates {{key, interval_us, burst}…}, breakers {key…}}.
-- Returns {'ok', probing (1|0)} | {'idle'} | {'no', binding key, limit, until ms, reason}.
-- Invariants: slots and lane hang on their holder and return with it; a half-open breaker lets one
--   probe through; a refused lane waits in the order of asking (`wt:<key>`), with a timer as a net;
--   a holder whose lease is gone gets nothing, for nothing of it would return.
-- Bound: O(keys of the request), at most 32.
local function refuse(key, limit, until_ms, reason)
  park_lane(req.lane, until_ms, reason, key)
  return { 'no', key, tostring(limit), until_ms, reason }
end
if redis.call('EXISTS', P .. 'lt:' .. req.lane) == 0 and redis.call('EXISTS', P .. 'lb:' .. req.lane) == 0 then
  return { 'idle' }
end
if not redis.call('ZSCORE', P .. 'incarnations', req.holder) then
  return { 'no', req.holder, '0', now + 1000, 'lease_lost' }
end
local probing = nil
for _, key in ipairs(req.breakers) do
  local b = redis.call('HMGET', P .. 'br:' .. key, 'until', 'probe', 'reason')
  if b[1] then
    if tonumber(b[1]) > now then return refuse(key, 0, tonumber(b[1]), b[3] or 'breaker_open') end
    if b[2] and b[2] ~= '' then return refuse(key, 1, now + 2000, 'breaker_probing') end
    probing = key
  end
end
for _, slot in ipairs(req.slots) do
  local key, ceiling = slot[1], slot[2]
  if req.windows[key] then
    local window = tonumber(redis.call('HGET', P .. 'fb:' .. key, 'window')) or req.windows[key]
    ceiling = math.min(ceiling, math.floor(window))
  end
  if redis.call('SCARD', P .. 'sl:' .. key) >= ceiling then
    redis.call('ZADD', P .. 'wt:' .. key, 'NX', now, req.lane)
    return refuse(key, ceiling, now + 5000, 'connection_limit')
  end
end
local now_us = now * 1000
for _, rate in ipairs(req.rates) do
  local tat = math.max(tonumber(redis.call('GET', P .. 'rt:' .. rate[1])) or 0, now_us)
  local wait = tat + rate[2] - rate[3] * rate[2] - now_us
  if wait > 0 then
    return refuse(rate[1], rate[2], now + math.ceil(wait / 1000), 'connection_rate')
  end
end
for _, rate in ipairs(req.rates) do
  local tat = math.max(tonumber(redis.call('GET', P .. 'rt:' .. rate[1])) or 0, now_us) + rate[2]
  redis.call('SET', P .. 'rt:' .. rate[1], string.format('%.0f', tat), 'PX',
    math.ceil((tat - now_us) / 1000) + 1000)
end
for _, slot in ipairs(req.slots) do
  redis.call('SADD', P .. 'sl:' .. slot[1], req.token)
  redis.call('SADD', P .. 'ih:' .. req.holder, 's ' .. req.token .. ' ' .. slot[1])
end
if probing then
  redis.call('HSET', P .. 'br:' .. probing, 'probe', req.token)
  redis.call('SADD', P .. 'ih:' .. req.holder, 'p ' .. req.token .. ' ' .. probing)
end
redis.call('SADD', P .. 'ih:' .. req.holder, 'l ' .. req.token .. ' ' .. req.lane)
redis.call('ZREM', P .. 'wanting:' .. pool_of(req.lane), req.lane)
return { 'ok', probing and 1 or 0 }
