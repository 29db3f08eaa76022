-- Put one message into the store; also how settle and deadline enqueue reports.
-- a: id, m (packed record), beside (key that has the content, if it is not given), expires_ms, notice_ms, ingress, rcpt {{address, destination, what it asks of DSNs, if anything}…},
--    first (number of the first recipient of this chunk), staged.
-- A staged message has `rows` (how many have come) until it is committed; all of
-- its recipients count as open from the first chunk on, so it cannot end before it began.
-- The event is the record itself.
local function announce(id, m)
  emit('message.accepted', id, cmsgpack.pack(m))
  count('counters', 'messages:' .. m[M_INGRESS], 1)
  count('counters', 'accepted:' .. m[M_INGRESS] .. ':' .. m[M_CLASS], m[M_COUNT])
end
local function first_deadline(m)
  if m[M_NOTICE] > 0 then return math.min(m[M_NOTICE], m[M_EXPIRES]) end
  return m[M_EXPIRES]
end
-- Rows of a chunk; `fresh` maps keys to {field, value…} of hashes that are not written yet: there
-- is nothing that a row could repeat then. `suppressed`: of whom the list has an entry, by position.
local function add_recipients(a, m, fresh, suppressed)
  local new, state = 0, a.staged and 's' or 'r'
  local by_queue = {}
  for i, pair in ipairs(a.rcpt) do
    local n = a.first + i - 1
    local rec = { 1, state, pair[1], pair[2], 0, 0, 0, '', '', 0, '', '' }
    if pair[3] then rec[ANSWER], rec[DSN] = '', pair[3] end
    local ended = suppressed and suppressed[i]
    if ended then
      rec[STATE], rec[DUE] = 'S', now
      rec[REASON], rec[TEXT] = word_of(ended)
    end
    local key, is_new = bucket_key(a.id, n), true
    if fresh then
      local fields = fresh[key]
      if not fields then fields = {}; fresh[key] = fields end
      fields[#fields + 1] = whole(n)
      fields[#fields + 1] = cmsgpack.pack(rec)
    else
      is_new = call('HSETNX', key, n, cmsgpack.pack(rec)) == 1
    end
    if is_new and not ended then
      new = new + 1
      count_outstanding(destination_of(rec), m[M_CREATED], 1)
      if not a.staged then
        local q = queue_of(m, rec)
        local rids = by_queue[q]
        if not rids then rids = {}; by_queue[q] = rids end
        rids[#rids + 1] = rid_of(a.id, n)
      end
    end
  end
  count_state(state, new)
  for q, rids in pairs(by_queue) do make_ready(q, rids) end
  if a.staged and not fresh then call('HINCRBY', message_key(a.id), 'rows', new) end
  return new
end
-- What there is to tell and to count of recipients that were ended as they came, once the message is announced.
local function end_suppressed(a, m, suppressed, fields, left)
  fields[4] = whole(left)
  for i, row in ipairs(a.rcpt) do
    local entry = suppressed[i]
    if entry then
      local reason, text = word_of(entry)
      local rec = { [ADDRESS] = row[1], [ATTEMPT] = 0, [REASON] = reason, [TEXT] = text }
      tell_suppressed(a.id, a.first + i - 1, m, rec, entry)
    end
  end
end
-- Content up to this lies in the message's hash, which stays a listpack: a key of its own costs 110 octets.
local SHORT_OCTETS = 900
-- `suppressed` (suppressed_among) of some of its recipients: they have their end at once.
local function add_message(a, content, suppressed)
  local m = cmsgpack.unpack(a.m)
  m[M_CREATED] = now
  m[M_EXPIRES] = now + a.expires_ms
  m[M_NOTICE] = a.notice_ms > 0 and now + a.notice_ms or 0
  local fields = { 'm', cmsgpack.pack(m), 'o', whole(m[M_COUNT]) }
  local fresh = { [message_key(a.id)] = fields }
  local new = add_recipients(a, m, fresh, suppressed)
  if a.staged then
    fields[#fields + 1] = 'rows'
    fields[#fields + 1] = new
  else
    announce(a.id, m)
    if suppressed then end_suppressed(a, m, suppressed, fields, new) end
  end
  if a.beside then
    call('RENAME', P .. a.beside, content_key(a.id))
    call('PERSIST', content_key(a.id))
  elseif #content <= SHORT_OCTETS then
    fields[#fields + 1] = 'b'
    fields[#fields + 1] = content
  else
    call('SET', content_key(a.id), content)
  end
  for key, values in pairs(fresh) do
    for i = 1, #values, 1000 do call('HSET', key, unpack(values, i, math.min(i + 999, #values))) end
  end
  call('ZADD', P .. 'deadlines', whole(first_deadline(m)), a.id)
  return new
end
-- Whether the sender has had as many reports within the hour as he gets (`rs:<address>`).
local REPORTS_MS = 3600000
local function is_flooded(report)
  if not report.hourly then return false end
  local key = P .. 'rs:' .. report.rcpt[1][1]
  local had = call('INCR', key)
  if had == 1 then call('PEXPIRE', key, REPORTS_MS) end
  return had > report.hourly
end
-- a report (DSN) is a message as above, with `hourly` (how many its recipient gets), `reports_on` (the message it is about).
local function add_report(report, content)
  if load_message(report.id) then return end
  if not is_flooded(report) then add_message(report, content) return end
  count('counters', 'reports_suppressed', 1)
  emit('report.suppressed', report.id, cmsgpack.pack({ queue_id = report.reports_on,
    address = report.rcpt[1][1], limit = report.hourly }))
end
