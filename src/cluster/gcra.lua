-- Takes one request from each of some budgets, or from none of them.
-- KEYS the budgets; ARGV three for each: microseconds for one request; requests at once; 1 for a budget of tries in a row, else 0.
-- Returns 0; or, and then nothing is taken, which of them makes wait the longest, and for how many microseconds.
--
-- A budget is one number: when it would be full again, in microseconds since 1970 by the server's clock, so that the nodes' clocks
-- do not matter. One of tries in a row is how many there were, and until when that is remembered: the time of as many requests.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local text, life = {}, {}
local slowest, longest = 0, 0
for place, key in ipairs(KEYS) do
    local interval, most, in_a_row = unpack(ARGV, place * 3 - 2, place * 3)
    interval, most = tonumber(interval), tonumber(most)
    local whole = interval * most
    local kept = redis.call('GET', key) or ''
    local wait = 0
    if in_a_row == '1' then
        local tries, stop = string.match(kept, '^(%d+) (%d+)$')
        tries, stop = tonumber(tries or '') or 0, tonumber(stop or '') or 0
        -- The second: a clock that was set back must not stop anybody for longer than a stop.
        stop = math.min(stop, now + whole)
        if stop <= now then
            tries = 0
        end
        if tries >= most then
            wait = stop - now
        end
        life[place] = interval * math.min(tries + 1, most)
        text[place] = string.format('%.0f %.0f', tries + 1, now + life[place])
    else
        local full = tonumber(kept) or now
        -- The last: a clock that was set back must not lock anybody out for longer than an empty budget does.
        full = math.min(math.max(full, now), now + whole)
        life[place] = full + interval - now
        wait = life[place] - whole
        text[place] = string.format('%.0f', full + interval)
    end
    if wait > longest then
        slowest, longest = place, wait
    end
end
if slowest > 0 then
    return {slowest, longest}
end
for place, key in ipairs(KEYS) do
    redis.call('SET', key, text[place], 'PX', string.format('%.0f', math.ceil(life[place] / 1000)))
end
return 0
