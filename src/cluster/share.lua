-- Takes from budgets what nodes have let through already, so none is refused. A budget is one number: when it would be full
-- again, in microseconds since 1970 by the server's clock. It may be overdrawn.
-- KEYS the budgets; ARGV two for each: microseconds for what was let through; by how many at most it may be away from full.
-- Returns, for each budget and with a space between, the microseconds until it is full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local away = {}
for i, key in ipairs(KEYS) do
    local most = now + tonumber(ARGV[2 * i])
    local full = tonumber(redis.call('GET', key) or '') or now
    -- The least: a clock that was set back, or a stranger's number, must not lock anybody out for ever.
    full = math.min(math.max(full, now) + tonumber(ARGV[2 * i - 1]), most)
    redis.call('SET', key, string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000)))
    away[i] = string.format('%.0f', full - now)
end
return table.concat(away, ' ')
