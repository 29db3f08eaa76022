"""Redis: keys, records, Lua transitions and what reads them; the only room that imports redis.

Every change of state is one Lua script (`lua/*.lua`), atomic and safe to run twice. Python passes
facts and durations; time is Redis' own. Nothing here decides: verdicts, limits and delays come
from the callers.
"""
