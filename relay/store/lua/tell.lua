#!lua flags=allow-oom
-- Tell what an incoming report says of a recipient: an event, once.
-- KEYS: [1] meta. ARGV: [1] {id (of the message), only (recipient number; 0: find `address`), address, event,
--   keep_ms, data (what the report says), suppress (see suppress_for) if it puts the recipient on the suppression list,
--   and then `vouched`: whether the token names `address`, and `tenant`, for a message that is forgotten}.
-- Returns {'new', number} | {'again', number} | {'unknown', 0} (the message has no such recipient).
-- Invariants: `in:<event>:<recipient>` lives for keep_ms, so a report counts once however often and by whomever
--   it is sent; the recipient's state never changes: a report is about one that is finished. Where the
--   message is forgotten already the token alone names it, and the event has what the report says.
-- Bound: O(1) with a number, else O(recipients of the message), at most 500 looked at.
local m = load_message(req.id)
local n, rec = req.only, nil
if m and n > m[M_COUNT] then return { 'unknown', 0 } end
if m and n > 0 then rec = load_recipient(req.id, n) end
if m and n == 0 then
  local wanted = string.lower(req.address)
  for i = 1, math.min(m[M_COUNT], 500) do
    local one = load_recipient(req.id, i)
    if one and string.lower(one[ADDRESS]) == wanted then n = i; rec = one; break end
  end
  -- A message to one recipient can only be about that one, whatever address it was forwarded to.
  if n == 0 and m[M_COUNT] == 1 then n = 1; rec = load_recipient(req.id, 1) end
  if n == 0 then return { 'unknown', 0 } end
end
local whom = n > 0 and rid_of(req.id, n) or req.id .. '.' .. string.lower(req.address)
if not call('SET', P .. 'in:' .. req.event .. ':' .. whom, stamp, 'NX', 'PX', whole(req.keep_ms)) then
  return { 'again', n }
end
local id = whom .. ':' .. req.event
if rec then
  emit(req.event, id, recipient_data(req.id, n, m, rec, req.data))
else
  local data = { recipient_id = n > 0 and rid_of(req.id, n) or '', queue_id = req.id, address = req.address,
    attempt = 0 }
  for key, value in pairs(req.data) do data[key] = value end
  emit(req.event, id, cmsgpack.pack(data))
end
-- Who shares a message with others has its token, too: it ends nobody's mail but his own.
local is_his = req.only > 0 or (m and m[M_COUNT] == 1)
local address = rec and rec[ADDRESS] or (not m and req.vouched and req.address)
if req.suppress and is_his and address then
  suppress_for(m and m[M_TENANT] or req.tenant, address, req.suppress, id, req.data.text)
  flush_counters()
end
return { 'new', n }
