#!lua flags=allow-oom
-- What connections taught: feedback windows and breakers, shared by all workers.
-- KEYS: [1] meta. ARGV: [1] {windows {{key, good, limit, initial}…}, breakers {{key, good, base_ms,
--   cap_ms, threshold, reason, text}…}, lane}.
-- Returns list of {key, 'open'|'closed', until ms} for the breakers that changed.
-- The window is Postfix's (qmgr_queue.c) with feedback 1/N both ways and failure cohorts of 10;
-- a breaker opens for base * n^2 after `threshold` failures in a row, capped.
-- Bound: O(keys of the request).
local COHORTS = 10
local function feed_window(key, good, limit, initial)
  local k = P .. 'fb:' .. key
  local h = redis.call('HMGET', k, 'window', 'success', 'failure', 'cohorts')
  local window = tonumber(h[1]) or initial
  local success, failure, cohorts = tonumber(h[2]) or 0, tonumber(h[3]) or 0, tonumber(h[4]) or 0
  if good then
    cohorts = 0
    if window < limit then
      local g = 1 / window
      success = success + g
      while success + g / 2 >= 1 do window = window + 1; success = success - 1; failure = 0 end
      window = math.min(window, limit)
    end
  else
    cohorts = cohorts + 1 / window
    local f = 1 / window
    failure = failure - f
    while failure - f / 2 < 0 do window = window - 1; failure = failure + 1; success = 0 end
    window = math.max(window, 1)
  end
  redis.call('HSET', k, 'window', window, 'success', success, 'failure', failure, 'cohorts', cohorts)
  redis.call('PEXPIRE', k, 3600000)
  return cohorts >= COHORTS
end
local changes = {}
local function feed_breaker(b)
  local k = P .. 'br:' .. b[1]
  if b[2] then
    if redis.call('DEL', k) == 1 then changes[#changes + 1] = { b[1], 'closed', 0 } end
    return
  end
  local fails = redis.call('HINCRBY', k, 'fails', 1)
  redis.call('PEXPIRE', k, 86400000)
  if fails < b[5] then return end
  local over = fails - b[5] + 1
  local until_ms = now + math.min(b[3] * over * over, b[4])
  redis.call('HSET', k, 'until', until_ms, 'probe', '', 'reason', b[6], 'text', b[7])
  changes[#changes + 1] = { b[1], 'open', until_ms }
end
for _, w in ipairs(req.windows) do feed_window(w[1], w[2], w[3], w[4]) end
for _, b in ipairs(req.breakers) do feed_breaker(b) end
for _, change in ipairs(changes) do
  local type = change[2] == 'open' and 'site.suspended' or 'site.resumed'
  if string.sub(change[1], 1, 5) == 'route' then type = change[2] == 'open' and 'route.paused' or 'route.resumed' end
  emit(type, change[1] .. ':' .. now, cmsgpack.pack({ key = change[1], ['until'] = change[3] / 1000,
    reason = redis.call('HGET', P .. 'br:' .. change[1], 'reason') or '',
    text = redis.call('HGET', P .. 'br:' .. change[1], 'text') or '' }))
end
return changes
