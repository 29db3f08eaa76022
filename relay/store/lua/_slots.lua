-- Giving slots, probe tokens and lanes back; the first lane that waits for a slot is woken.
local function has_work(lane)
  return redis.call('EXISTS', P .. 'lt:' .. lane) == 1 or redis.call('EXISTS', P .. 'lb:' .. lane) == 1
end
local function wake_waiter(key)
  while true do
    local first = redis.call('ZPOPMIN', P .. 'wt:' .. key)
    if not first[1] then return end
    if has_work(first[1]) then
      redis.call('HDEL', P .. 'ln:' .. first[1], 'pu', 'pr', 'pt')
      want(first[1])
      return
    end
  end
end
local function give_back(holder, entry)
  local kind, token, key = string.match(entry, '^(%a) (%S+) (.*)$')
  redis.call('SREM', P .. 'ih:' .. holder, entry)
  if kind == 's' then
    if redis.call('SREM', P .. 'sl:' .. key, token) == 1 then wake_waiter(key) end
  elseif kind == 'p' then
    if redis.call('HGET', P .. 'br:' .. key, 'probe') == token then
      redis.call('HSET', P .. 'br:' .. key, 'probe', '')
    end
  elseif has_work(key) then
    want(key)
  end
end
