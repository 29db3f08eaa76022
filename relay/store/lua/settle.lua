#!lua flags=allow-oom
-- Record what attempts came to, each item by itself, and the marks of dots about to be sent.
-- KEYS: [1] meta. ARGV: [1] {holder, marks {'<rid>:<attempt>'…}, items {{id, n, attempt, kind, delay_ms,
--   advance, reason, text, provider, event type, event (packed), severity:scope, second event type,
--   answer (store/answer.py; '': as it was), what it means for the suppression list, if anything}…}, reports {…}};
--   [2…] the contents of the reports (DSNs to be queued); `about` of a report: the items that it tells of,
--   it is queued with the first of them that applies.
--   kind: D delivered, F failed, X expired, d deferred, r given back, h held.
-- Returns a word per item: 'ok' | 'again' (was settled so before) | 'fenced' | 'unknown'.
-- Invariants: fenced by (recipient, attempt, whose claim): a final outcome still applies after a lost lease if the
--   recipient has not been claimed since, also where a failover of Redis lost the claim; anything else then changes
--   nothing; a delivery that comes too late is recorded as recipient.duplicate; one bad item never blocks the others.
-- Bound: O(items), at most 256.
mark_dots(req.holder, req.marks)
local function apply(item, m, rec)
  local id, n, kind = item[1], item[2], item[4]
  local rid, q = rid_of(id, n), queue_of(m, rec)
  leave_state(q, rid, rec)
  rec[CLAIMS] = 0
  if item[14] ~= '' then rec[ANSWER] = item[14] end
  if FINAL[kind] then
    finish(q, id, n, m, rec, kind, item[7], item[8])
    count_outcome(WORD[kind], item[9])
    if item[15] then
      suppress_for(m[M_TENANT], rec[ADDRESS], item[15], rid .. ':' .. rec[ATTEMPT] .. ':' .. item[10], said(rec))
    end
  elseif rec[WISH] ~= '' and follow_wish(q, id, n, m, rec) then return
  else
    rec[REASON], rec[TEXT] = item[7], item[8]
    if kind == 'd' then
      if item[6] then rec[STEP] = rec[STEP] + 1 end
      enter_deferred(q, rid, rec, now + item[5])
      count_outcome('deferred', item[9])
    elseif kind == 'h' then
      enter_held(q, rid, rec, item[7], item[8])
    elseif item[5] > 0 then
      enter_deferred(q, rid, rec, now + item[5])
    else
      enter_ready(q, rid, rec, true)
    end
    save_recipient(id, n, rec)
    if m[M_EXPIRES] <= now then call('ZADD', P .. 'deadlines', now, id) end
  end
  if item[12] ~= '' then count('counters', 'attempts:' .. item[12] .. ':' .. item[9], 1) end
  for _, type in ipairs({ item[10], item[13] }) do
    if type ~= '' then emit(type, rid .. ':' .. rec[ATTEMPT] .. ':' .. type, item[11]) end
  end
end
-- An attempt of which the store knows nothing: a failover lost the claim. Its end counts all the same,
-- unless another has claimed the recipient since, or its message is not even committed.
local function was_forgotten(rec, attempt)
  return rec[ATTEMPT] < attempt and rec[STATE] ~= 's' and (rec[STATE] ~= 'c' or rec[HOLDER] == req.holder)
end
local known = {}
local function settle(item)
  local id, n, attempt, kind = item[1], item[2], item[3], item[4]
  lets_go('is', req.holder, rid_of(id, n) .. ':' .. attempt)
  local m, rec = known[id], nil
  if m then rec = load_recipient(id, n) else m, rec = load_both(id, n) end
  known[id] = m
  if not rec then return 'unknown' end
  if rec[ATTEMPT] == attempt and (rec[HOLDER] == '' or sign_of(rec[HOLDER]) == sign_of(req.holder)) then
    if rec[STATE] == 'c' then apply(item, m, rec); return 'ok' end
    if rec[STATE] == kind then return 'again' end
    if FINAL[kind] and not FINAL[rec[STATE]] then apply(item, m, rec); return 'ok' end
  elseif FINAL[kind] and not FINAL[rec[STATE]] and was_forgotten(rec, attempt) then
    rec[ATTEMPT] = attempt
    if rec[STATE] ~= 'c' then rec[HOLDER] = sign_of(req.holder) end
    apply(item, m, rec)
    return 'ok'
  end
  if kind == 'D' then
    emit('recipient.duplicate', rid_of(id, n) .. ':' .. attempt .. ':recipient.duplicate',
      recipient_data(id, n, m, rec, { late_attempt = attempt,
        text = 'an attempt that had been given up for lost delivered it' }))
    count('counters', 'duplicates', 1)
  end
  return 'fenced'
end
local answers = {}
for i, item in ipairs(req.items) do answers[i] = settle(item) end
for i, report in ipairs(req.reports) do
  local applied = false
  for _, position in ipairs(report.about) do applied = applied or answers[position] == 'ok' end
  if applied then add_report(report, ARGV[1 + i]) end
end
settle_queues()
return answers
