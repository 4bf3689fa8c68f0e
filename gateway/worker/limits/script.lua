-- Charges, leases and gives back, for every limit of a request in one step. The one script of the store.
--
-- KEYS  one for each limit; in a Cluster all in one slot.
-- ARGV  kind, count, and then algorithm, a, b, c, cost for each key.
--   kind       0 charge up to count requests of this cost; 1 lease up to so many; 2 give back count; 3 charge count, fitting or not
--   algorithm  0 gcra:    a requests in b us, at most c at once
--              1 fixed:   a requests in each window of b us of the calendar (UTC); b = 0: each month
--              2 sliding: a requests in any b us, the window before counted by the share of it that still matters; b = 0: month
-- Answers how many were granted (all keys or none are charged for each), then for each key: what remains, the milliseconds until
-- one more of this cost fits, and those until everything is back.
--
-- All times are the server's. Every key expires at the moment from which it would say what no key says. A value names its algorithm
-- and is read as none by another one: a limit may change its kind.
--   gcra     "g second level interval"   the level in us at the beginning of that second: how long until all of it has drained; and the
--                                   time in us that one request took then. Under other terms it holds as many requests as before.
--   fixed    "f start used 0"       start of the window in us since the epoch
--   sliding  "s start used before"

local clock = redis.call('TIME')
local second, fraction = tonumber(clock[1]), tonumber(clock[2])
local now = second * 1000000 + fraction
local kind, count = tonumber(ARGV[1]), tonumber(ARGV[2])

local GCRA, FIXED = 0, 1
local GIVE_BACK, CHARGE_ALL = 2, 3
local DAY = 86400000000
local LONGEST = 366 * DAY      -- nothing is owed for longer
local SLACK = 0.000001         -- of a request: what rounding may hide of one that fits

-- Days since the epoch of the first day of a month; months count on from January 1970.
local function month_start(month)
  local year = 1970 + math.floor(month / 12)
  local of_year = month % 12               -- 0 January
  -- A year that begins in March puts the leap day last.
  local y = of_year < 2 and year - 1 or year
  local m = (of_year + 10) % 12
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) + math.floor((153 * m + 2) / 5)
  return (days - 719468) * DAY
end

-- Start and end of the calendar window that holds this time, and the start of the one before.
local function window(at, period)
  if period > 0 then
    local start = at - at % period
    return start, start + period, start - period
  end
  local month = math.floor(at / DAY / 30.436875)
  if month_start(month) > at then
    month = month - 1
  elseif month_start(month + 1) <= at then
    month = month + 1
  end
  return month_start(month), month_start(month + 1), month_start(month - 1)
end

local function read_gcra(limit, value)
  local at, level, interval = string.match(value, '^g (%d+) ([%d.]+) ([%d.]+)$')
  limit.interval = limit.b / limit.a
  limit.mark = string.format('%.9f', limit.interval)
  limit.most = limit.c
  local full, before = tonumber(level), tonumber(interval)
  local left = 0
  if full and before and before > 0 then
    -- A clock that went back (another primary) must not make anyone wait longer than the level says.
    left = full - (math.max(now, tonumber(at) * 1000000) - tonumber(at) * 1000000)
    if left > 0 and interval ~= limit.mark then
      -- A limit that was changed: nobody owes more than fits.
      left = math.min(left / before, limit.most) * limit.interval
    end
  end
  limit.used = math.max(0, left) / limit.interval
end

local function read_window(limit, value)
  local letter = limit.algorithm == FIXED and 'f' or 's'
  local at, used, before = string.match(value, '^' .. letter .. ' (%d+) (%d+) (%d+)$')
  local start, stop, previous = window(now, limit.b)
  at = tonumber(at)
  if at and at > start then
    -- The clock went back over the edge of a window: the newer one stands.
    start, stop, previous = window(at, limit.b)
  end
  limit.start, limit.stop, limit.most = start, stop, limit.a
  limit.current, limit.before = 0, 0
  if at == start then
    limit.current, limit.before = tonumber(used), tonumber(before)
  elseif at == previous then
    limit.before = tonumber(used)
  end
  if limit.algorithm == FIXED then
    limit.before = 0
  end
end

-- What of the window before still counts.
local function share(limit)
  return limit.before * (1 - math.max(0, now - limit.start) / (limit.stop - limit.start))
end

-- How many more requests of its cost a limit takes.
local function fits(limit)
  return math.floor((limit.most - limit.used) / limit.cost + SLACK)
end

local limits = {}
local granted = count
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 5
  local limit = {
    key = key,
    algorithm = tonumber(ARGV[at + 1]),
    a = tonumber(ARGV[at + 2]),
    b = tonumber(ARGV[at + 3]),
    c = tonumber(ARGV[at + 4]),
    cost = tonumber(ARGV[at + 5]),
  }
  local value = redis.call('GET', key) or ''
  if limit.algorithm == GCRA then
    read_gcra(limit, value)
  else
    read_window(limit, value)
    limit.used = limit.current + share(limit)
  end
  if kind ~= GIVE_BACK and kind ~= CHARGE_ALL then
    granted = math.min(granted, math.max(0, fits(limit)))
  end
  limits[i] = limit
end

local answer = {granted}
local sign = kind == GIVE_BACK and -1 or 1
for _, limit in ipairs(limits) do
  local wait, full, value
  local change = sign * granted * limit.cost
  if limit.algorithm == GCRA then
    limit.used = math.min(math.max(0, limit.used + change), LONGEST / limit.interval)
    full = limit.used * limit.interval
    wait = fits(limit) > 0 and 0 or (limit.used + limit.cost - limit.most) * limit.interval
    value = string.format('g %.0f %.9f %s', second, fraction + full, limit.mark)
  else
    limit.current = math.max(0, limit.current + change)
    limit.used = limit.current + share(limit)
    local free = limit.most - limit.cost
    local _, after = window(limit.stop, limit.b)
    full = limit.stop - now
    if fits(limit) > 0 then
      wait = 0
    elseif limit.algorithm == FIXED or free < 0 then
      wait = full
    elseif limit.current <= free then
      wait = limit.start + (limit.stop - limit.start) * (1 - (free - limit.current) / limit.before) - now
    else
      wait = full + (after - limit.stop) * (1 - free / limit.current)
    end
    if limit.algorithm ~= FIXED and limit.current > 0 then
      full = after - now
    elseif limit.current == 0 and limit.before == 0 then
      full = 0
    end
    local letter = limit.algorithm == FIXED and 'f' or 's'
    value = string.format('%s %.0f %.0f %.0f', letter, limit.start, limit.current, limit.before)
  end
  if change ~= 0 then
    if full > 0 then
      redis.call('SET', limit.key, value, 'PX', string.format('%.0f', math.ceil(full / 1000)))
    elseif kind == GIVE_BACK then
      redis.call('DEL', limit.key)
    end
  end
  answer[#answer + 1] = math.floor(math.max(0, limit.most - limit.used) + SLACK)
  answer[#answer + 1] = math.max(0, math.ceil(wait / 1000))
  answer[#answer + 1] = math.ceil(full / 1000)
end
return answer
