#!lua flags=allow-oom
-- Add what a process has counted since its last report, and note that it lives.
-- KEYS: [1] meta. ARGV: [1] {process, number (of the report), live_ms, info (packed), counts {field = by}}.
-- Returns 1 | 0 (this report was taken before). `metrics`: hash of sums; `processes`: zset process -> lives
--   until; `proc:<process>`: hash n (the last report), info.
-- Invariants: a report counts once, however often it is sent; of a process that is not heard of for
--   live_ms the sums stay. Bound: O(counts), at most 1,000, and 10 processes that are gone.
local key = P .. 'proc:' .. req.process
local is_new = req.number > tonumber(call('HGET', key, 'n') or 0)
if is_new then
  for field, by in pairs(req.counts) do call('HINCRBY', P .. 'metrics', field, string.format('%.0f', by)) end
end
call('HSET', key, 'n', req.number, 'info', req.info)
call('PEXPIRE', key, req.live_ms)
for _, gone in ipairs(call('ZRANGEBYSCORE', P .. 'processes', '-inf', now, 'LIMIT', 0, 10)) do
  call('ZREM', P .. 'processes', gone)
end
call('ZADD', P .. 'processes', now + req.live_ms, req.process)
return is_new and 1 or 0
