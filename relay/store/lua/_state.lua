-- A recipient's way from state to state, and the ends of recipients and messages.
-- The queue's field that counts a record: r or y for ready, else its state.
local function field_of(rec)
  if rec[STATE] == 'r' then return rec[STEP] > 0 and 'y' or 'r' end
  return rec[STATE]
end
-- A recipient whose last claims were lost in a row, so many of them: perhaps it ends its workers. It is
-- claimed alone, and a holder has one such at a time: key `ia:<holder>`.
local SUSPECT_CLAIMS, POISON_CLAIMS = 3, 5
-- Whose claim the last one was, kept when it is over: a failover that lost a claim lets another
-- holder make the same attempt. Six characters are enough to tell two holders of one recipient apart.
local function sign_of(holder) return string.sub(holder, -6) end
-- `ic`: a claim, `is`: a mark of this holder is over.
local function lets_go(kind, holder, member)
  local key = P .. kind .. ':' .. holder
  local members = let_go[key]
  if not members then members = {}; let_go[key] = members end
  members[#members + 1] = member
end
-- Take a live record out of the structure that its state names. List entries go stale instead
-- and are dropped when met (never LREM).
local function leave_state(q, rid, rec)
  shift(q, field_of(rec), -1)
  count_state(rec[STATE], -1)
  if rec[STATE] == 'd' then call('ZREM', qkey(q) .. ':d', rid)
  elseif rec[STATE] == 'h' then call('ZREM', qkey(q) .. ':h', rid)
  elseif rec[STATE] == 'c' then
    lets_go('ic', rec[HOLDER], rid)
    lets_go('is', rec[HOLDER], rid .. ':' .. rec[ATTEMPT])
    if rec[CLAIMS] > SUSPECT_CLAIMS then call('DEL', P .. 'ia:' .. rec[HOLDER]) end
    rec[HOLDER] = sign_of(rec[HOLDER])
  end
end
local function enter_ready(q, rid, rec, at_front)
  rec[STATE] = 'r'
  rec[DUE] = 0
  local kind = field_of(rec)
  call(at_front and 'LPUSH' or 'RPUSH', qkey(q) .. ':' .. kind, rid)
  shift(q, kind, 1)
  count_state('r', 1)
end
local function enter_deferred(q, rid, rec, due)
  rec[STATE] = 'd'
  rec[DUE] = due
  call('ZADD', qkey(q) .. ':d', due, rid)
  set_timer('q:' .. q, due)
  shift(q, 'd', 1)
  count_state('d', 1)
end
local function enter_held(q, rid, rec, reason, text)
  rec[STATE] = 'h'
  rec[REASON] = reason
  rec[TEXT] = text
  call('ZADD', qkey(q) .. ':h', stamp, rid)
  shift(q, 'h', 1)
  count_state('h', 1)
end
-- The end of a message: content goes, the record stays readable for an hour.
local FINISHED_MS = 3600000
local function end_message(id, m)
  ended[#ended + 1] = id
  if call('HDEL', message_key(id), 'b') == 0 then call('DEL', content_key(id)) end
  for first = 1, m[M_COUNT], 50 do call('PEXPIRE', bucket_key(id, first), FINISHED_MS) end
end
-- The end of a recipient; the last one of a message ends the message.
local function finish(q, id, n, m, rec, state, reason, text)
  rec[STATE] = state
  rec[REASON] = reason
  rec[TEXT] = text
  rec[DUE] = now
  count_outstanding(destination_of(rec), m[M_CREATED], -1)
  touched[q] = true
  if m[M_COUNT] == 1 then
    call('HSET', message_key(id), whole(n), cmsgpack.pack(rec), 'o', '0')
    return end_message(id, m)
  end
  save_recipient(id, n, rec)
  if call('HINCRBY', message_key(id), 'o', -1) <= 0 then end_message(id, m) end
end
-- The end by an operator's order: `bt` of the message {text, actor}.
local function fail_by_order(q, id, n, m, rec)
  local order = cmsgpack.unpack(call('HGET', message_key(id), 'bt'))
  finish(q, id, n, m, rec, 'F', 'bounced', order.text)
  count_outcome('failed', 'none')
  emit_recipient('recipient.failed', id, n, m, rec, { answer = rec[ANSWER], actor = order.actor })
end
-- Where the sender is to be told, the recipient is held, with the wish to bounce, until his report is
-- there (deadline.lua); `bo` counts how often that was asked for.
local function bounce(q, id, n, m, rec)
  if m[M_REVERSE] == '' or bit.band(m[M_FLAGS], FLAG_DSN) == 0 then return fail_by_order(q, id, n, m, rec) end
  enter_held(q, rid_of(id, n), rec, 'bounced', cmsgpack.unpack(call('HGET', message_key(id), 'bt')).text)
  rec[WISH] = 'bounce'
  save_recipient(id, n, rec)
  call('HINCRBY', message_key(id), 'bo', 1)
  call('ZADD', P .. 'deadlines', now, id)
end
