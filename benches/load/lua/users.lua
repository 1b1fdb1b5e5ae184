-- For wrk: takes the tokens of a file (one a line) in turn, one for each request. Used after done.lua.
local ready = {}
local at = 0

function init(args)
  for token in io.lines(args[1]) do
    ready[#ready + 1] = wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. token })
  end
end

function request()
  at = at % #ready + 1
  return ready[at]
end
