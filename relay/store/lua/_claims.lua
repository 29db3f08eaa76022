-- Claims of an incarnation: set `ic:<holder>` of recipient-ids; set `is:<holder>` of
-- `<recipient-id>:<attempt>` whose final dot may have been sent.
local function mark_dots(holder, marks)
  if #marks == 0 then return 0 end
  local rids, held = {}, {}
  for i, mark in ipairs(marks) do rids[i] = string.match(mark, '^(.*):') end
  for i, is_held in ipairs(call('SMISMEMBER', P .. 'ic:' .. holder, unpack(rids))) do
    if is_held == 1 then held[#held + 1] = marks[i] end
  end
  if #held > 0 then call('SADD', P .. 'is:' .. holder, unpack(held)) end
  return #held
end
-- An operator's wish, uttered while the recipient was claimed, is followed when it comes back open.
local function follow_wish(q, id, n, m, rec)
  local wish = rec[WISH]
  rec[WISH] = ''
  if wish == 'bounce' then bounce(q, id, n, m, rec) end
  if wish == 'cancel' then
    finish(q, id, n, m, rec, 'C', 'cancelled', 'cancelled while an attempt was under way')
    count_outcome('cancelled', 'none')
    emit_recipient('recipient.cancelled', id, n, m, rec)
  elseif wish == 'hold' then
    enter_held(q, rid_of(id, n), rec, 'held', 'held while an attempt was under way')
    save_recipient(id, n, rec)
    emit_recipient('recipient.held', id, n, m, rec)
  end
  return wish ~= ''
end
-- Mail that ended its workers. Recipients of its message that are suspect follow, those of the same bucket now,
-- others when they come back: so that one message ends five workers or six, not two for each recipient.
local function is_poison(id, rec)
  return rec[CLAIMS] >= POISON_CLAIMS
    or rec[CLAIMS] >= SUSPECT_CLAIMS and call('HEXISTS', message_key(id), 'poison') == 1
end
local function hold_as_poison(q, id, n, m, rec)
  local rid = rid_of(id, n)
  rec[WISH] = ''
  enter_held(q, rid, rec, 'poison', 'each of the last ' .. rec[CLAIMS] .. ' attempts broke off without an outcome')
  save_recipient(id, n, rec)
  emit_recipient('recipient.held', id, n, m, rec, { text = rec[TEXT] })
  count('counters', 'poisoned', 1)
  poisoned[#poisoned + 1] = rid
end
local function hold_suspects_of(id, n, m)
  call('HSET', message_key(id), 'poison', 1)
  local first = n - (n - 1) % 50
  for other = first, math.min(first + 49, m[M_COUNT]) do
    local rec = load_recipient(id, other)
    if rec and rec[STATE] == 'r' and rec[CLAIMS] >= SUSPECT_CLAIMS then
      local q = queue_of(m, rec)
      leave_state(q, id .. '.' .. other, rec)
      hold_as_poison(q, id, other, m, rec)
    end
  end
end
-- A recipient whose holder died, or knows nothing of it. Its dot may have been sent: then the
-- policy of its class speaks (policies: t, b = policy). `unheard`: the server died with the holder,
-- perhaps with marks that it had not read; policies other than retry wait for them before a dot.
local function come_back(holder, rid, policies, unheard)
  local id, n = split_rid(rid)
  call('SREM', P .. 'ic:' .. holder, rid)
  local m = load_message(id)
  local rec = m and load_recipient(id, n)
  if not rec or rec[STATE] ~= 'c' or rec[HOLDER] ~= holder then return end
  local q = queue_of(m, rec)
  local uncertain = call('SISMEMBER', P .. 'is:' .. holder, rid .. ':' .. rec[ATTEMPT]) == 1
    or unheard and policies[m[M_CLASS]] == 'retry'
  leave_state(q, rid, rec)
  count('counters', 'reclaimed', 1)
  local policy = uncertain and policies[m[M_CLASS]] or 'retry'
  if uncertain then
    rec[REASON] = 'uncertain'
    rec[TEXT] = unheard and 'the worker and Redis died together, perhaps after the final dot was sent'
      or 'the attempt broke off at its final dot, perhaps after it was sent, before a reply was recorded'
    emit_recipient('recipient.uncertain', id, n, m, rec, { policy = policy })
    count('counters', 'uncertain', 1)
  end
  if rec[WISH] == 'cancel' or rec[WISH] == 'bounce' then
    follow_wish(q, id, n, m, rec)
  elseif policy == 'assume-delivered' then
    finish(q, id, n, m, rec, 'D', 'assumed_delivered', rec[TEXT])
    count_outcome('delivered', 'none')
    emit_recipient('recipient.delivered', id, n, m, rec)
  elseif is_poison(id, rec) then
    hold_as_poison(q, id, n, m, rec)
    hold_suspects_of(id, n, m)
  elseif policy == 'hold' then
    rec[WISH] = ''
    enter_held(q, rid, rec, 'uncertain', rec[TEXT])
    save_recipient(id, n, rec)
    emit_recipient('recipient.held', id, n, m, rec)
  elseif not follow_wish(q, id, n, m, rec) then
    enter_ready(q, rid, rec, true)
    save_recipient(id, n, rec)
  end
end
