-- Takes one request from a budget. The budget is one number: when it would be full again, in microseconds since 1970 by the
-- server's clock, so that the nodes' clocks do not matter.
-- KEYS[1] the budget; ARGV[1] microseconds for one request; ARGV[2] requests at once.
-- Returns 0, or the microseconds until one is allowed again; then nothing is taken.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local whole = interval * tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or '') or now
-- The last: a clock that was set back must not lock anybody out for longer than an empty budget does.
full = math.min(math.max(full, now), now + whole)
local after = full + interval
local wait = after - now - whole
if wait > 0 then
    return wait
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', string.format('%.0f', math.ceil((after - now) / 1000)))
return 0
