#!lua flags=allow-oom
-- Note that final dots are about to be sent.
-- KEYS: [1] meta. ARGV: [1] {holder, marks {'<recipient-id>:<attempt>'…}}.
-- Returns how many of them the holder may still send: those that it still holds.
-- Invariants: a mark lives exactly as long as its claim. Bound: O(marks), at most 50 a session of the process.
return mark_dots(req.holder, req.marks)
