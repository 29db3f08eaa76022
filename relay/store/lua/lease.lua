#!lua flags=allow-oom
-- Renew (or begin, or end) an incarnation's lease.
-- KEYS: [1] meta. ARGV: [1] {holder, lease_ms, begin (true at first), info (packed), stop}.
-- Returns {'ok', revoked rids…} | {'lost'}. Invariants: a lease that was given up or reclaimed is
--   never revived; one that only ran out is (nothing was taken from it yet). Bound: 1,000 revoked.
if req.stop then
  -- LT: one that is being reclaimed already stays so.
  call('ZADD', P .. 'incarnations', 'XX', 'LT', 0, req.holder)
  return { 'ok' }
end
local expiry = call('ZSCORE', P .. 'incarnations', req.holder)
if not req.begin and (not expiry or tonumber(expiry) <= 0) then return { 'lost' } end
run_since()
call('ZADD', P .. 'incarnations', now + req.lease_ms, req.holder)
call('HSET', P .. 'workers', req.holder, req.info)
local revoked = call('LRANGE', P .. 'iv:' .. req.holder, 0, 999)
if #revoked > 0 then call('LTRIM', P .. 'iv:' .. req.holder, #revoked, -1) end
return { 'ok', unpack(revoked) }
