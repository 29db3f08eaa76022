-- Common ground of every script: prefix, request, schema check, clock, records, counters, events.
-- All scripts are one library (scripts.py): what stands at the top of these files is made once, when
-- the library is loaded; `begin` sets what belongs to a call.
-- KEYS[1] `<prefix>meta`; all other keys are made from its prefix (one hash tag = one shard).
-- ARGV[1] msgpack map of the request, field `schema` first checked against the store's.
-- As locals: a global is looked up by its name each time, which came to a tenth of a script's time.
-- There are none while the library is loaded: its first call binds them.
local string, math, cmsgpack, tonumber, tostring, ipairs, pairs, unpack, call
-- Small numbers as text: Redis takes half a microsecond to format one.
local DIGITS
local function bind()
  string, math, cmsgpack, call = _G.string, _G.math, _G.cmsgpack, redis.call
  tonumber, tostring, ipairs, pairs, unpack = _G.tonumber, _G.tostring, _G.ipairs, _G.pairs, _G.unpack
  DIGITS = {}
  for n = -1, 100 do DIGITS[n] = string.format('%d', n) end
end
-- The text of a whole number: five times cheaper than what Lua and Redis make of one.
local function whole(n) return DIGITS[n] or string.format('%d', n) end
local P, req, clock, shown, step, now, stamp, counts, poisoned
local begin_queues  -- of _queue.lua
local function begin(keys, arguments)
  if not call then bind() end
  P = string.sub(keys[1], 1, -5)
  req = cmsgpack.unpack(arguments[1])
  local meta = call('HMGET', keys[1], 'schema', 'shift_ms', 'frozen_ms', 'step_ms')
  if meta[1] ~= req.schema then
    return redis.error_reply('MISMATCH the store has schema ' .. tostring(meta[1]) ..
      ', this relay speaks ' .. tostring(req.schema) .. '; run the version that wrote it, or drain it first')
  end
  -- The caller waits for replicas, which asks for a write of his own: that of the call which this one
  -- repeats, and which left it nothing to do, went another way.
  if req.copied then call('HSET', keys[1], 'schema', req.schema) end
  clock = call('TIME')
  -- Milliseconds of Redis' clock. Where that was set, meta.step_ms keeps ours steady (see tick.lua);
  -- tests move it by meta.shift_ms or stop it at meta.frozen_ms.
  step = tonumber(meta[4]) or 0
  shown = clock[1] * 1000 + math.floor(clock[2] / 1000) + step
  now = tonumber(meta[3]) or shown + (tonumber(meta[2]) or 0)
  stamp = whole(now)
  counts, poisoned = {}, {}
  begin_queues()
end

-- Recipient records: msgpack array, indices below; readers in Python: codec.RecipientRecord.
-- HOLDER: who has it claimed; afterwards the sign of who had (_state.lua).
local VERSION, STATE, ADDRESS, DESTINATION, STEP, CLAIMS, ATTEMPT = 1, 2, 3, 4, 5, 6, 7
local REASON, TEXT, DUE, HOLDER, WISH = 8, 9, 10, 11, 12
-- What the last attempt met, one line (store/answer.py); absent before the first. TEXT is empty where
-- the reply in it says all.
local ANSWER = 13
-- NOTIFY and ORCPT of its RCPT (model/dsn.py); absent where none was given.
local DSN = 14
-- States: one letter in the record, the full word for users.
local WORD = { s = 'staged', r = 'ready', d = 'deferred', h = 'held', c = 'claimed',
  D = 'delivered', F = 'failed', X = 'expired', C = 'cancelled', S = 'suppressed' }
local FINAL = { D = true, F = true, X = true, C = true, S = true }

-- Message records: msgpack array in field `m` of the message's hash; codec.MessageRecord.
local M_REVERSE, M_TENANT, M_CLASS, M_CAMPAIGN, M_LABELS, M_MESSAGE_ID = 2, 3, 4, 5, 6, 7
local M_CREATED, M_EXPIRES, M_NOTICE, M_SIZE, M_COUNT, M_FLAGS, M_INGRESS = 8, 9, 10, 11, 12, 13, 14
local FLAG_DSN = 4

local function message_key(id) return P .. 'm:' .. id end
local function content_key(id) return P .. 'c:' .. id end
-- The hash that holds recipient n: the message's own for the first 50, buckets of 50 after.
local function bucket_key(id, n)
  if n <= 50 then return P .. 'm:' .. id end
  return P .. 'b:' .. id .. ':' .. math.floor((n - 1) / 50)
end
local function rid_of(id, n) return id .. '.' .. whole(n) end
local function split_rid(rid)
  local id, n = string.match(rid, '^(%w+)%.(%d+)$')
  return id, tonumber(n)
end
-- A record that cannot be read is as good as absent for every script, so that it blocks no other; a
-- copy lies in `quarantine` for a human.
local function read_record(id, n, raw)
  if not raw then return nil end
  local readable, record = pcall(cmsgpack.unpack, raw)
  if readable and type(record) == 'table' then return record, raw end
  call('HSET', P .. 'quarantine', n and rid_of(id, n) or id, raw)
  return nil
end
local function load_message(id)
  return read_record(id, nil, call('HGET', message_key(id), 'm'))
end
local function load_recipient(id, n)
  return (read_record(id, n, call('HGET', bucket_key(id, n), whole(n))))
end
-- Both at once: message, recipient, the message's bytes, its content where it lies in the message's hash.
local function load_both(id, n)
  if n > 50 then
    local m, raw = load_message(id)
    return m, m and load_recipient(id, n), raw
  end
  local v = call('HMGET', message_key(id), 'm', whole(n), 'b')
  local m = read_record(id, nil, v[1])
  return m, m and read_record(id, n, v[2]), v[1], v[3]
end
local function save_recipient(id, n, rec)
  call('HSET', bucket_key(id, n), whole(n), cmsgpack.pack(rec))
end
local function destination_of(rec)
  if rec[DESTINATION] ~= '' then return rec[DESTINATION] end
  return string.match(rec[ADDRESS], '@([^@]*)$') or ''
end
-- What happened last, for people: the sentence of the record, else the last reply.
local function said(rec)
  if rec[TEXT] ~= '' then return rec[TEXT] end
  local code, enhanced, text = string.match(rec[ANSWER] or '', '^%S+ %S+ %S+ (%d+) (%S+) (.*)$')
  if not code then return '' end
  return code .. (enhanced == '-' and '' or ' ' .. enhanced) .. (text == '' and '' or ' ' .. text)
end
local function queue_of(m, rec)
  return m[M_CLASS] .. '|' .. m[M_TENANT] .. '|' .. m[M_CAMPAIGN] .. '|' .. destination_of(rec)
end
local function destination_of_queue(q) return string.match(q, '^[^|]*|[^|]*|[^|]*|(.*)$') end
local function class_and_tenant_of(q) return string.match(q, '^([^|]*)|([^|]*)|') end

-- Counters are gathered during a script and written once at its end by flush_counters().
local function count(key, field, by)
  local of = counts[key]
  if not of then of = {}; counts[key] = of end
  of[field] = (of[field] or 0) + by
end
local function flush_counters()
  for key, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then
        local left = call('HINCRBY', P .. key, field, whole(by))
        if left == 0 and string.sub(key, 1, 2) == 'v:' then call('HDEL', P .. key, field) end
      end
    end
  end
  counts = {}
end
-- One more (or less) recipient in a state, of a queue whose destination's view follows.
local function count_state(state, by) count('states', WORD[state], by) end
local function count_outcome(outcome, provider)
  count('counters', 'recipients:' .. outcome .. ':' .. provider, 1)
end
local BIN_MS = 300000
local function count_outstanding(destination, created, by)
  count('v:' .. destination, whole(math.floor(created / BIN_MS)), by)
end

-- Events: a stream entry of type, stable id, payload (msgpack map). Ids are made from the
-- recipient and attempt, so that a reader can drop an event it has seen.
local function emit(type, id, payload)
  call('XADD', P .. 'events', '*', 't', type, 'i', id, 'd', payload)
end
-- As the records have it; readers get it in words (store/events.py).
local function recipient_data(id, n, m, rec, extra)
  local data = { recipient_id = rid_of(id, n), queue_id = id, address = rec[ADDRESS],
    attempt = rec[ATTEMPT], reason = rec[REASON], text = rec[TEXT], reverse_path = m[M_REVERSE],
    message_id = m[M_MESSAGE_ID], class = m[M_CLASS], campaign = m[M_CAMPAIGN], tenant = m[M_TENANT],
    labels = m[M_LABELS], created_ms = m[M_CREATED] }
  for key, value in pairs(extra or {}) do data[key] = value end
  return cmsgpack.pack(data)
end
local function emit_recipient(type, id, n, m, rec, extra)
  emit(type, rid_of(id, n) .. ':' .. rec[ATTEMPT] .. ':' .. type, recipient_data(id, n, m, rec, extra))
end
