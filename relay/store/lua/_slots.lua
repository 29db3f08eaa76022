-- Giving slots and probe tokens back; the first lane that waits for one is woken.
local function wake_waiter(key)
  while true do
    local first = redis.call('ZPOPMIN', P .. 'wt:' .. key)
    if not first[1] then return end
    if redis.call('EXISTS', P .. 'lt:' .. first[1]) == 1 or redis.call('EXISTS', P .. 'lb:' .. first[1]) == 1 then
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
  end
end
