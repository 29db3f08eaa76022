#!lua flags=allow-oom
-- Put names on the suppression list, or take them off.
-- KEYS: [1] meta. ARGV: [1] {verb (add remove), tenant, actor, rows, most, quiet (tell nothing)}.
--   add: rows {{name, reason, origin, since_ms (0: now), until_ms (0: by keep_ms), keep_ms (0: for good), evidence, note}…};
--   remove: rows {name…}.
-- Returns {'ok' | 'full', new, changed}: of `full` the rows up to there were taken. remove: {'ok', gone, 0}.
-- Invariants: twice has the effect of once.
-- Bound: O(rows), at most 500.
local done = { new = 0, changed = 0, same = 0 }
local function add(row)
  local until_ms = row[5]
  if until_ms == 0 and row[6] > 0 then until_ms = now + row[6] end
  local entry = { 1, row[2], row[3], row[4] > 0 and row[4] or now, until_ms, row[7], row[8] }
  local word = suppress(req.tenant, row[1], entry, req.most)
  if word == 'full' then return false end
  if word ~= 'same' and not req.quiet then
    tell_of_entry('suppression.added', req.tenant, row[1], entry, req.actor)
  end
  done[word] = done[word] + 1
  return true
end
local function remove(name)
  local entry = in_force(call('HGET', P .. 'sup:' .. req.tenant, name))
  drop_entry(req.tenant, name)
  if not entry then return end
  tell_of_entry('suppression.removed', req.tenant, name, entry, req.actor)
  done.new = done.new + 1
end
for _, row in ipairs(req.rows) do
  if req.verb == 'remove' then remove(row)
  elseif not add(row) then return { 'full', done.new, done.changed } end
end
return { 'ok', done.new, done.changed }
