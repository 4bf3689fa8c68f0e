-- Cycles over the targets of a file, "host path" a line (the argument after "--"): every request another route.
local requests, at = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local host, path = line:match("(%S+)%s+(%S+)")
    requests[#requests + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
