-- Takes one request from each of some budgets, or from none of them. A budget is one number: when it would be full again, in
-- microseconds since 1970 by the server's clock, so that the nodes' clocks do not matter.
-- KEYS the budgets; ARGV two for each: microseconds for one request; requests at once.
-- Returns 0; or, and then nothing is taken, which of them makes wait the longest, and for how many microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local after = {}
local slowest, longest = 0, 0
for place, key in ipairs(KEYS) do
    local interval = tonumber(ARGV[place * 2 - 1])
    local whole = interval * tonumber(ARGV[place * 2])
    local full = tonumber(redis.call('GET', key) or '') or now
    -- The last: a clock that was set back must not lock anybody out for longer than an empty budget does.
    full = math.min(math.max(full, now), now + whole)
    after[place] = full + interval
    local wait = after[place] - now - whole
    if wait > longest then
        slowest, longest = place, wait
    end
end
if slowest > 0 then
    return {slowest, longest}
end
for place, key in ipairs(KEYS) do
    local life = math.ceil((after[place] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', after[place]), 'PX', string.format('%.0f', life))
end
return 0
