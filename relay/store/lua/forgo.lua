#!lua flags=allow-oom
-- Give back what an incarnation holds by the store's account and knows nothing of: the replies to
-- its take or claim were lost with a connection, its release never arrived.
-- KEYS: [1] meta. ARGV: [1] {holder, rids {…}, entries {… of ih:<holder>}, uncertain {t, b = policy}}.
-- Returns rids held as poison. Invariants: as when a dead incarnation's holdings come back; what the holder does not
--   hold any more is left alone. Bound: O(rids + entries), at most 500 of each.
for _, rid in ipairs(req.rids) do
  if call('SISMEMBER', P .. 'ic:' .. req.holder, rid) == 1 then come_back(req.holder, rid, req.uncertain) end
end
for _, entry in ipairs(req.entries) do give_back(req.holder, entry) end
settle_queues()
return poisoned
