#!lua flags=allow-oom
-- Give a session's slots, probe tokens and lane back.
-- KEYS: [1] meta. ARGV: [1] {holder, token, lane, slots {key…}, probes {key…}}.
-- Returns 1. Invariants: idempotent; a lane that still has queues is wanted again; one waiter is
--   woken per slot. Bound: O(slots), at most 32.
for _, key in ipairs(req.probes) do give_back(req.holder, 'p ' .. req.token .. ' ' .. key) end
for _, key in ipairs(req.slots) do give_back(req.holder, 's ' .. req.token .. ' ' .. key) end
give_back(req.holder, 'l ' .. req.token .. ' ' .. req.lane)
return 1
