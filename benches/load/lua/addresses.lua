-- For wrk: each request names the next of so many clients, as a proxy in front would. Used after done.lua.
local count, at = 1, 0

function init(args)
  count = tonumber(args[1])
end

function request()
  at = at % count + 1
  local address = string.format("10.%d.%d.%d", math.floor(at / 65536) % 256, math.floor(at / 256) % 256, at % 256)
  return wrk.format("GET", nil, { ["X-Forwarded-For"] = address })
end
