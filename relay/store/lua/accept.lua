-- Accept one message, or one chunk of a staged one, durably and at most once.
-- KEYS: [1] meta. ARGV: [1] request (see _accept.lua; besides: tenant, idem, digest), [2] content as stored,
--   '' for a later chunk of a staged message.
-- Returns {'ok', id, new} | {'replay', id} | {'staging', id} (a replay of a message whose hand-over was
--   never finished: go on under that id) | {'conflict', id} | {'full', reason} | {'unknown', id} (a later
--   chunk of a message that is gone) | {'lost', id} (the content is not where `beside` says) |
--   {'suppressed', id, packed {name, reason, since ms}…} (the list has all of its recipients).
--   'ok' is followed by the numbers of the recipients that are suppressed, if any.
-- Invariants: the same id again changes nothing but rows not yet there; the same idempotency key
--   answers the first id; nothing is written when the store is marked full, or for a message
--   that nobody may get (but counters). Of a staged message the list is asked by commit.lua.
-- Bound: O(recipients of the call), at most 1,000.
local full = call('GET', P .. 'full')
if full then return { 'full', full } end
local function replay(id)
  if call('HEXISTS', message_key(id), 'rows') == 1 then return { 'staging', id } end
  return { 'replay', id }
end
local idem = req.idem and req.idem ~= '' and P .. 'idem:' .. req.tenant .. ':' .. req.idem
if idem then
  local known = call('GET', idem)
  if known then
    local id, digest = string.match(known, '^(%w+) (.*)$')
    if digest ~= req.digest then return { 'conflict', id } end
    if id ~= req.id then return replay(id) end
  end
end
local m = load_message(req.id)
if m then
  local h = call('HMGET', message_key(req.id), 'rows', 'gone')
  if not h[1] then return { 'replay', req.id } end
  if h[2] then return { 'unknown', req.id } end
end
-- Whom the list has, of a message that comes whole.
local suppressed = not m and not req.staged and suppressed_among(req.tenant, req.rcpt) or nil
local new
if m then
  new = add_recipients(req, m)
else
  if req.first > 1 then return { 'unknown', req.id } end
  if req.beside and call('EXISTS', P .. req.beside) == 0 then return { 'lost', req.id } end
  if suppressed and is_nobody_left(req.rcpt, suppressed) then return refusal(req.id, suppressed) end
  new = add_message(req, ARGV[2], suppressed)
  if idem then call('SET', idem, req.id .. ' ' .. req.digest, 'EX', 86400) end
end
settle_queues()
if not suppressed then return { 'ok', req.id, new } end
return { 'ok', req.id, new, unpack(numbers_of(suppressed, req)) }
