#!lua flags=allow-oom
-- What connections taught: feedback windows and breakers, shared by all workers.
-- KEYS: [1] meta. ARGV: [1] {windows {{key, successes (0: a failure), limit, initial}…}, breakers {{key, good, reason, text}…},
--   lane ('': none), session (its token), silent (the peer said nothing), base_ms, cap_ms, threshold}.
-- Returns list of {key, 'open'|'closed', until ms} for the breakers that changed, {key, 'wider', 0} for the
--   windows that grew.
-- Invariants: the window is that of policy/window.py (Postfix's qmgr_queue.c with feedback 1/N both ways
--   and failure cohorts of 10); `busy` are the slots of its key now. Where it dies, the breaker of its key
--   opens and it begins as new. A breaker opens for base * n^2 at its n-th opening in a row, capped, once
--   `threshold` failures came in a row; what fails while it is open was begun before and counts no more.
--   With a lane none opens while another session of it lives: a site that refuses one works with the others.
--   Where the peer says nothing, others that are on their way too prove nothing: it opens once more
--   sessions in a row met silence than there are, none of them being known to work (`lw:<lane>`).
--   Run twice it counts twice: the one script that is no statement of fact, so nobody repeats it.
-- Bound: O(keys of the request), at most 8, each with at most 50 successes.
local COHORTS = 10
local changes = {}
local function close(key)
  if call('DEL', P .. 'br:' .. key) == 1 then changes[#changes + 1] = { key, 'closed', 0, '', '' } end
end
local function fail(key, threshold, reason, text)
  local k = P .. 'br:' .. key
  if tonumber(call('HGET', k, 'until') or 0) > now then return end
  local openings = call('HINCRBY', k, 'fails', 1) - threshold + 1
  call('PEXPIRE', k, 86400000)
  if openings < 1 then return end
  local until_ms = now + math.min(req.base_ms * openings * openings, req.cap_ms)
  call('HSET', k, 'until', until_ms, 'probe', '', 'reason', reason, 'text', text)
  changes[#changes + 1] = { key, 'open', until_ms, reason, text }
end
-- A connection that carried mail works until it fails or its session ends.
local function note_work()
  if req.session == '' then return end
  local is_good = req.windows[1] and req.windows[1][2] > 0
  if not is_good then call('SREM', P .. 'lw:' .. req.lane, req.session) return end
  call('DEL', P .. 'lx:' .. req.lane)
  if call('SISMEMBER', P .. 'ls:' .. req.lane, req.session) == 1 then
    call('SADD', P .. 'lw:' .. req.lane, req.session)
  end
end
local function others_vouch(key)
  local sessions = req.lane == '' and 0 or sessions_of(req.lane)
  if sessions < 2 then return false end
  if not req.silent or call('SCARD', P .. 'lw:' .. req.lane) > 0 then return true end
  if tonumber(call('HGET', P .. 'br:' .. key, 'until') or 0) > now then return true end
  local met = call('INCR', P .. 'lx:' .. req.lane)
  call('PEXPIRE', P .. 'lx:' .. req.lane, 3600000)
  if met > sessions then call('DEL', P .. 'lx:' .. req.lane) end
  return met <= sessions
end
local wider = {}
local function feed_window(key, successes, limit, initial)
  local k = P .. 'fb:' .. key
  local h = call('HMGET', k, 'window', 'success', 'failure', 'cohorts')
  local window = tonumber(h[1]) or initial
  local success, failure, cohorts = tonumber(h[2]) or 0, tonumber(h[3]) or 0, tonumber(h[4]) or 0
  if successes > 0 then
    cohorts = 0
    local before, bound = window, math.min(limit, call('SCARD', P .. 'sl:' .. key) + initial)
    for _ = 1, successes do
      if window >= bound then break end
      local g = 1 / window
      success = success + g
      while success + g / 2 >= 1 do window = window + 1; success = math.max(success - 1, 0); failure = 0 end
    end
    if window > before then wider[#wider + 1] = { key, 'wider', 0 } end
    window = math.min(window, limit)
    close(key)
  else
    local f = 1 / window
    cohorts = cohorts + f
    if cohorts >= COHORTS then
      call('DEL', k)
      return fail(key, 1, 'connections_failed', 'connection after connection failed')
    end
    failure = failure - f
    while failure - f / 2 < 0 do window = window - 1; failure = failure + 1; success = 0 end
    window = math.max(window, 1)
  end
  call('HSET', k, 'window', window, 'success', success, 'failure', failure, 'cohorts', cohorts)
  call('PEXPIRE', k, 3600000)
end
for _, w in ipairs(req.windows) do feed_window(w[1], w[2], w[3], w[4]) end
note_work()
for _, b in ipairs(req.breakers) do
  if b[2] then close(b[1]) elseif not others_vouch(b[1]) then fail(b[1], req.threshold, b[3], b[4]) end
end
local answer = {}
for i, change in ipairs(changes) do
  local subject = string.sub(change[1], 1, 5) == 'route' and 'route.' or 'site.'
  local word = change[2] == 'closed' and 'resumed' or (subject == 'route.' and 'paused' or 'suspended')
  emit(subject .. word, change[1] .. ':' .. now, cmsgpack.pack({ key = change[1],
    ['until'] = change[3] / 1000, reason = change[4], text = change[5] }))
  answer[i] = { change[1], change[2], change[3] }
end
for _, grown in ipairs(wider) do answer[#answer + 1] = grown end
return answer
