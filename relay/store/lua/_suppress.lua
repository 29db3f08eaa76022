-- The suppression list: who gets no mail, and why. Each tenant has one:
--   sup:<tenant>   hash name -> msgpack, indices below
--   sups:<tenant>  zset name -> since, the order in which the list is shown
--   supx:<tenant>  zset name -> until, of those that end
-- A name is an address with A to Z in lower case, or `@domain` for everybody of a domain.
-- ORIGIN: manual import bounce complaint; UNTIL: 0 for good; EVIDENCE: the event that tells why.
local S_REASON, S_ORIGIN, S_SINCE, S_UNTIL, S_EVIDENCE, S_NOTE = 2, 3, 4, 5, 6, 7
local SWEPT = 10
local function in_force(raw)
  if not raw then return nil end
  local entry = cmsgpack.unpack(raw)
  if entry[S_UNTIL] > 0 and entry[S_UNTIL] <= now then return nil end
  return entry
end
local function drop_entry(tenant, name)
  local gone = call('HDEL', P .. 'sup:' .. tenant, name) == 1
  call('ZREM', P .. 'sups:' .. tenant, name)
  call('ZREM', P .. 'supx:' .. tenant, name)
  return gone
end
-- What has ended makes room, in the full list what would end first.
local function has_room(tenant, most)
  local ends = P .. 'supx:' .. tenant
  for _, name in ipairs(call('ZRANGE', ends, '-inf', stamp, 'BYSCORE', 'LIMIT', 0, SWEPT)) do
    drop_entry(tenant, name)
  end
  if call('HLEN', P .. 'sup:' .. tenant) < most then return true end
  local first = call('ZRANGE', ends, 0, 0)[1]
  return first ~= nil and drop_entry(tenant, first)
end
-- Put an entry on the list: 'new', 'changed', 'same' or 'full'. A bounce never takes the place of what
-- a person or a complaint put there; a complaint is kept whatever the list holds.
local function suppress(tenant, name, entry, most)
  local key, origin = P .. 'sup:' .. tenant, entry[S_ORIGIN]
  local raw = call('HGET', key, name)
  local old = in_force(raw)
  if old and origin == 'bounce' then
    if old[S_ORIGIN] ~= 'bounce' then return 'same' end
    entry[S_SINCE] = old[S_SINCE]
  end
  local packed = cmsgpack.pack(entry)
  if packed == raw then return 'same' end
  if not raw and not has_room(tenant, most) and origin ~= 'complaint' then return 'full' end
  call('HSET', key, name, packed)
  call('ZADD', P .. 'sups:' .. tenant, whole(entry[S_SINCE]), name)
  if entry[S_UNTIL] > 0 then call('ZADD', P .. 'supx:' .. tenant, whole(entry[S_UNTIL]), name)
  else call('ZREM', P .. 'supx:' .. tenant, name) end
  return old and 'changed' or 'new'
end
local function tell_of_entry(type, tenant, name, entry, actor)
  emit(type, tenant .. ':' .. name .. ':' .. stamp .. ':' .. type, cmsgpack.pack({ entry = name, tenant = tenant,
    reason = entry[S_REASON], origin = entry[S_ORIGIN], since = entry[S_SINCE] / 1000,
    ['until'] = entry[S_UNTIL] / 1000, evidence = entry[S_EVIDENCE], note = entry[S_NOTE], actor = actor }))
end
-- What mail came to ends up on the list. word {reason, origin, keep_ms (0: for good), most}.
local function suppress_for(tenant, address, word, evidence, note)
  local until_ms = word[3] > 0 and now + word[3] or 0
  local entry, name = { 1, word[1], word[2], now, until_ms, evidence, note }, string.lower(address)
  local done = suppress(tenant, name, entry, word[4])
  if done == 'full' then count('counters', 'suppressions_lost', 1)
  elseif done ~= 'same' then tell_of_entry('suppression.added', tenant, name, entry, '') end
end
-- Which of these rows ({address…}…) get no mail: position -> entry in force; nil: none. An empty list
-- costs one look.
local function suppressed_among(tenant, rows)
  local key = P .. 'sup:' .. tenant
  if call('EXISTS', key) == 0 then return nil end
  local names, found = {}, nil
  for i, row in ipairs(rows) do
    local address = string.lower(row[1])
    names[2 * i - 1], names[2 * i] = address, string.match(address, '@[^@]*$')
  end
  for first = 1, #names, 1000 do
    local values = call('HMGET', key, unpack(names, first, math.min(first + 999, #names)))
    for j, raw in ipairs(values) do
      local entry, i = in_force(raw), math.floor((first + j) / 2)
      if entry and not (found and found[i]) then
        found = found or {}
        entry.name = names[first + j - 1]
        found[i] = entry
      end
    end
  end
  return found
end
local function count_suppressed(entry) count('counters', 'suppressed:' .. entry[S_REASON], 1) end
-- Reason and sentence of a recipient that gets no mail.
local function word_of(entry)
  local who = string.sub(entry.name, 1, 1) == '@' and 'domain' or 'address'
  return entry[S_REASON], 'the ' .. who .. ' is on the suppression list: ' .. entry[S_REASON]
    .. (entry[S_NOTE] == '' and '' or ' (' .. entry[S_NOTE] .. ')')
end
local function tell_suppressed(id, n, m, rec, entry)
  count_suppressed(entry)
  count_outcome('suppressed', 'none')
  emit_recipient('recipient.suppressed', id, n, m, rec, { entry = entry.name, origin = entry[S_ORIGIN],
    since = entry[S_SINCE] / 1000, evidence = entry[S_EVIDENCE] })
end
local function is_nobody_left(rows, suppressed)
  for i = 1, #rows do if not suppressed[i] then return false end end
  return true
end
-- The answer of accept for a message that nobody may get.
local function refusal(id, suppressed)
  local answer = { 'suppressed', id }
  for _, entry in ipairs(suppressed) do
    count_suppressed(entry)
    answer[#answer + 1] = cmsgpack.pack({ entry.name, entry[S_REASON], entry[S_SINCE] })
  end
  flush_counters()
  return answer
end
local function numbers_of(suppressed, a)
  local numbers = {}
  for i = 1, #a.rcpt do
    if suppressed[i] then numbers[#numbers + 1] = a.first + i - 1 end
  end
  return numbers
end
