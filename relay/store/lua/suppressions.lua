#!lua flags=allow-oom
-- Read the suppression list.
-- KEYS: [1] meta. ARGV: [1] {tenant, names} | {tenant, after (name, '': from the top), since (its, ms), limit}.
-- Returns, of names: (name, packed entry)… of those in force; of a page, newest first:
--   {more (1|0), its last name, that one's since, (name, packed entry)…}.
-- Invariants: nothing is written. What has ended is not shown. Where `after` is gone its place counts.
-- Bound: O(names) or O(limit), at most 1,000.
local key, order = P .. 'sup:' .. req.tenant, P .. 'sups:' .. req.tenant
local answer = {}
local function show(names)
  if #names == 0 then return end
  for i, raw in ipairs(call('HMGET', key, unpack(names))) do
    if in_force(raw) then answer[#answer + 1], answer[#answer + 2] = names[i], raw end
  end
end
if req.names then
  show(req.names)
  return answer
end
local from = 0
if req.after ~= '' then
  local rank = call('ZREVRANK', order, req.after)
  from = rank and rank + 1 or call('ZCOUNT', order, '(' .. whole(req.since), '+inf')
end
local page = call('ZREVRANGE', order, from, from + req.limit, 'WITHSCORES')
local names, last, since = {}, '', '0'
for i = 1, math.min(#page, 2 * req.limit), 2 do
  names[#names + 1], last, since = page[i], page[i], page[i + 1]
end
answer = { #page > 2 * req.limit and 1 or 0, last, since }
show(names)
return answer
