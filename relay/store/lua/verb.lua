#!lua flags=allow-oom
-- An operator's word about recipients of one message.
-- KEYS: [1] meta. ARGV: [1] {id, from, limit, only (0: all), verb (retry hold release cancel bounce),
--   reason, text, actor}.
-- Returns {'ok', changed, next from, skipped} | {'unknown'}; skipped: recipients the verb did not fit.
-- Invariants: claimed recipients keep their lease and follow the wish when settled, unless the
--   attempt ends them first; whom a bounce leaves held fails with its report (deadline.lua), at once
--   where the caller goes on, else by the ticker; running twice changes nothing more.
-- Bound: O(limit), at most 500.
local m = load_message(req.id)
if not m then return { 'unknown' } end
local first = req.only > 0 and req.only or req.from
local last = req.only > 0 and req.only or math.min(m[M_COUNT], req.from + req.limit - 1)
local function end_it(q, id, n, rec, state, outcome)
  if rec[STATE] == 's' then count_state('s', -1) else leave_state(q, rid_of(id, n), rec) end
  finish(q, id, n, m, rec, state, req.reason, req.text)
  count_outcome(outcome, 'none')
  emit_recipient('recipient.' .. outcome, id, n, m, rec, { actor = req.actor })
end
if req.verb == 'bounce' then
  call('HSET', message_key(req.id), 'bt', cmsgpack.pack({ text = req.text, actor = req.actor }))
end
local function revoke(rec, n, wish)
  if rec[WISH] == wish then return false end
  rec[WISH] = wish
  save_recipient(req.id, n, rec)
  call('RPUSH', P .. 'iv:' .. rec[HOLDER], rid_of(req.id, n))
  return true
end
local verbs = {
  retry = function(q, n, rec)
    if rec[STATE] ~= 'd' then return false end
    leave_state(q, rid_of(req.id, n), rec)
    enter_ready(q, rid_of(req.id, n), rec, true)
    save_recipient(req.id, n, rec)
    return true
  end,
  hold = function(q, n, rec)
    if rec[STATE] == 'c' then return revoke(rec, n, 'hold') end
    if rec[STATE] ~= 'd' and rec[STATE] ~= 'r' then return false end
    leave_state(q, rid_of(req.id, n), rec)
    enter_held(q, rid_of(req.id, n), rec, req.reason, req.text)
    save_recipient(req.id, n, rec)
    emit_recipient('recipient.held', req.id, n, m, rec, { actor = req.actor })
    return true
  end,
  release = function(q, n, rec)
    if rec[STATE] == 'c' and rec[WISH] == 'hold' then rec[WISH] = ''; save_recipient(req.id, n, rec); return true end
    if rec[STATE] ~= 'h' then return false end
    leave_state(q, rid_of(req.id, n), rec)
    rec[CLAIMS] = 0
    rec[REASON], rec[TEXT], rec[WISH] = '', '', ''
    enter_ready(q, rid_of(req.id, n), rec, false)
    save_recipient(req.id, n, rec)
    emit_recipient('recipient.released', req.id, n, m, rec, { actor = req.actor })
    return true
  end,
  cancel = function(q, n, rec)
    if rec[STATE] == 'c' then return revoke(rec, n, 'cancel') end
    if FINAL[rec[STATE]] then return false end
    end_it(q, req.id, n, rec, 'C', 'cancelled')
    return true
  end,
  bounce = function(q, n, rec)
    if rec[STATE] == 'c' then return revoke(rec, n, 'bounce') end
    if FINAL[rec[STATE]] or rec[WISH] == 'bounce' then return false end
    -- The sender of staged mail was never told that it is accepted, so there is nothing to take back.
    if rec[STATE] == 's' then end_it(q, req.id, n, rec, 'F', 'failed'); return true end
    leave_state(q, rid_of(req.id, n), rec)
    bounce(q, req.id, n, m, rec)
    return true
  end,
}
local changed, skipped = 0, 0
for n = first, last do
  local rec = load_recipient(req.id, n)
  if rec and verbs[req.verb](queue_of(m, rec), n, rec) then changed = changed + 1 else skipped = skipped + 1 end
end
settle_queues()
return { 'ok', changed, (req.only == 0 and last < m[M_COUNT]) and last + 1 or 0, skipped }
