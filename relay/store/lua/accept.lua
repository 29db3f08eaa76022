-- Accept one message, or one chunk of a staged one, durably and at most once.
-- KEYS: [1] meta. ARGV: [1] request (see _accept.lua; besides: idem, digest, event),
--   [2] content as stored, '' for a later chunk of a staged message.
-- Returns {'ok', id, new} | {'replay', id} | {'conflict', id} | {'full', reason}.
-- Invariants: the same id again changes nothing but rows not yet there; the same idempotency key
--   answers the first id; nothing is written when the store is marked full.
-- Bound: O(recipients of the call), at most 1,000.
local full = redis.call('GET', P .. 'full')
if full then return { 'full', full } end
local idem = req.idem and req.idem ~= '' and P .. 'idem:' .. req.tenant .. ':' .. req.idem
if idem then
  local known = redis.call('GET', idem)
  if known then
    local id, digest = string.match(known, '^(%w+) (.*)$')
    if digest ~= req.digest then return { 'conflict', id } end
    if id ~= req.id then return { 'replay', id } end
  end
end
local m = load_message(req.id)
if m and not req.staged then return { 'replay', req.id } end
if not m then
  m = add_message(req, ARGV[2])
  if idem then redis.call('SET', idem, req.id .. ' ' .. req.digest, 'EX', 86400) end
  emit('message.accepted', req.id .. ':message.accepted', req.event)
end
local new = add_recipients(req, m)
settle_queues()
return { 'ok', req.id, new }
