/**
 * scripts: the steps of Lock/Redis that run on the server. Each is one atomic step there, and each may be sent twice.
 *
 * DESIGN. A key has a number of permits; an exclusive lock is a key of one permit. KEYS 1 is a hash of the grants: by owner, its fence,
 * its end and its beginning. KEYS 2 is the last fence of the namespace, KEYS 3 a sorted set of the owners that wait, by arrival. Times
 * are the server's, in µs: below 2^53, the largest exact integer of Lua, until the year 2255. A fence is drawn in the step of its
 * grant, and is never below the clock, so it also rises after a loss of all data. An owner is `service|permits|text`; each service
 * listens on a channel of its name.
 * A release gives the permits straight to the first waiters whose services listen: no newcomer passes, and only those wake. Such a
 * grant ends soon unless its owner asks for it, so a waiter that cannot answer delays the others only that long.
 */

/** ARGV of every script begins with owner and limit. */
const prelude = `
local owner, limit = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local used, soonest = 0, math.huge

local function text(number) return string.format('%.0f', number) end
local function permitsOf(owner) return tonumber(string.match(owner, '^[^|]*|(%d+)|')) end
local function keep(key, millis)
  if redis.call('PTTL', key) < tonumber(millis) then redis.call('PEXPIRE', key, millis) end
end
local function write(owner, fence, ends, began)
  redis.call('HSET', KEYS[1], owner, fence .. ' ' .. text(ends) .. ' ' .. began)
  keep(KEYS[1], text(math.ceil((ends - now) / 1000)))
end
local function read(owner)
  local found = redis.call('HGET', KEYS[1], owner)
  if found then return string.match(found, '^(%d+) (%d+) (%d+)$') end
end
local function count()
  local grants = redis.call('HGETALL', KEYS[1])
  for i = 1, #grants, 2 do
    local ends = tonumber(string.match(grants[i + 1], ' (%d+) '))
    if ends <= now then
      redis.call('HDEL', KEYS[1], grants[i])
    else
      used = used + permitsOf(grants[i])
      soonest = math.min(soonest, ends)
    end
  end
end
local function grant(owner, millis)
  local last = tonumber(redis.call('GET', KEYS[2])) or 0
  local fence = text(math.max(last + 1, now))
  redis.call('SET', KEYS[2], fence)
  write(owner, fence, now + millis * 1000, text(now))
  used = used + permitsOf(owner)
  return fence
end
local function first() return redis.call('ZRANGE', KEYS[3], 0, 0)[1] end
-- Gives the free permits to the first waiters for so long; or, with 0, only wakes them all.
local function serve(millis, channels)
  local waiter = first()
  while waiter and (millis == '0' or used + permitsOf(waiter) <= limit) do
    redis.call('ZREM', KEYS[3], waiter)
    local listeners = redis.call('PUBLISH', channels .. string.match(waiter, '^[^|]*'), waiter)
    if listeners > 0 and millis ~= '0' then grant(waiter, millis) end
    waiter = first()
  end
end
`

/**
 * ARGV 3 ttl, 4 how long an abandoned queue stays, or 0: do not join it, 5 and 6 the arguments of `serve`; 5 is 0 if there is no queue.
 * Gives [1, fence], or [0, how long the next grant lasts]. The same owner gets the same grant again: its reply was lost, or it was
 * given the permits while it waited.
 */
export const acquire = `${prelude}
count()
if ARGV[5] ~= '0' then serve(ARGV[5], ARGV[6]) end
local fence, ends, began = read(owner)
if fence then
  write(owner, fence, math.max(tonumber(ends), now + ARGV[3] * 1000), began)
  return {1, fence}
end
local waiter = first()
local isNext = not waiter or waiter == owner or ARGV[5] == '0'
if isNext and used + permitsOf(owner) <= limit then
  redis.call('ZREM', KEYS[3], owner)
  return {1, grant(owner, ARGV[3])}
end
if ARGV[4] ~= '0' then
  redis.call('ZADD', KEYS[3], 'NX', text(now), owner)
  keep(KEYS[3], ARGV[4])
end
return {0, text(math.min((soonest - now) / 1000, 1000000000))}
`

/** ARGV 3 and 4 the arguments of `serve`. Also takes a waiter out of the queue. Gives 1 if there was a grant. */
export const release = `${prelude}
redis.call('ZREM', KEYS[3], owner)
local was = redis.call('HDEL', KEYS[1], owner)
count()
if was == 1 then serve(ARGV[3], ARGV[4]) end
return was
`

/** ARGV 3 fence, 4 ttl, or 0 to look only. Gives 1, 0 if the grant is gone, -1 if another stands in its place. */
export const renew = `${prelude}
count()
local fence, ends, began = read(owner)
if fence == ARGV[3] then
  write(owner, fence, math.max(tonumber(ends), now + ARGV[4] * 1000), began)
  return 1
end
return used + permitsOf(owner) > limit and -1 or 0
`

/** ARGV 3 the highest fence of a quorum. Gives 1 if there is a grant: then each later fence of this server is higher. */
export const raise = `${prelude}
count()
local fence, ends, began = read(owner)
if not fence then return 0 end
write(owner, ARGV[3], tonumber(ends), began)
if (tonumber(redis.call('GET', KEYS[2])) or 0) < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[3])
end
return 1
`

/** KEYS 1 alone. Gives the grants: owner and `fence end beginning` in turns. */
export const inspect = `return redis.call('HGETALL', KEYS[1])`
