/**
 * scripts: the steps of Lock/Redis that run on the server. Each is one atomic step there, and each may be sent twice.
 *
 * DESIGN. Of one key: a hash `lock` with `owner`, `fence` and `since`, which expires; and a sorted set `queue` of the owners that
 * wait, by their time of arrival. Of one namespace: `fence`, the last fence drawn. A fence is drawn in the step of its grant, and is
 * never below the server's clock in µs, so it also rises after a loss of all data. An owner begins with the name of its service
 * and a `|`; each service listens on a channel of that name.
 * A release gives the lock straight to the first waiter whose service listens: no newcomer passes, and one waiter wakes. That
 * grant expires soon unless the waiter asks for it, so a waiter that cannot answer delays the others only that long.
 */

/** KEYS 1 lock, 2 fence. µs stay below 2^53, the largest exact integer of Lua, until the year 2255. */
const grant = `
local function grant(owner, millis)
  local now = redis.call('TIME')
  local micros = now[1] * 1000000 + now[2]
  local last = tonumber(redis.call('GET', KEYS[2])) or 0
  local fence = string.format('%.0f', math.max(last + 1, micros))
  redis.call('SET', KEYS[2], fence)
  redis.call('HSET', KEYS[1], 'owner', owner, 'fence', fence,
    'since', string.format('%.0f', math.floor(micros / 1000)))
  redis.call('PEXPIRE', KEYS[1], millis)
  return fence
end
`

/**
 * KEYS 1 lock, 2 fence, 3 queue; ARGV 1 owner, 2 ttl, 3 how long an abandoned queue stays, or 0: do not join it.
 * Gives [1, fence], or [0, how long the present grant lasts]. The same owner gets the same grant again: its reply was lost, or it was
 * given the lock while it waited.
 */
export const acquire = `${grant}
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if held[1] == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, held[2]}
end
if held[1] then
  if ARGV[3] ~= '0' then
    local now = redis.call('TIME')
    redis.call('ZADD', KEYS[3], 'NX', string.format('%.0f', now[1] * 1000000 + now[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[3], ARGV[3])
  end
  return {0, redis.call('PTTL', KEYS[1])}
end
redis.call('ZREM', KEYS[3], ARGV[1])
return {1, grant(ARGV[1], ARGV[2])}
`

/**
 * KEYS as above; ARGV 1 owner, 2 how long the next owner has to ask for its grant, or 0: only wake all, 3 what a channel's name
 * begins with. Also takes a waiter out of the queue. Gives 1 if the lock was the owner's.
 */
export const release = `${grant}
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
while true do
  local first = redis.call('ZPOPMIN', KEYS[3])[1]
  if not first then return 1 end
  local listeners = redis.call('PUBLISH', ARGV[3] .. string.match(first, '^[^|]*'), first)
  if listeners > 0 and ARGV[2] ~= '0' then
    grant(first, ARGV[2])
    return 1
  end
end
`

/** KEYS 1 lock; ARGV 1 owner, 2 fence, 3 ttl, or 0 to look only. Gives 1, 0 if there is no grant, -1 if there is another. */
export const renew = `
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if not held[1] then return 0 end
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return -1 end
if tonumber(ARGV[3]) > redis.call('PTTL', KEYS[1]) and ARGV[3] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
`

/**
 * KEYS 1 lock, 2 fence; ARGV 1 owner, 2 the highest fence of a quorum. Gives 1 if the lock is the owner's: then each later fence of
 * this server is higher.
 */
export const raise = `
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[2])
if (tonumber(redis.call('GET', KEYS[2])) or 0) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2])
end
return 1
`

/** KEYS 1 lock. Gives [owner, fence, since]. */
export const inspect = `return redis.call('HMGET', KEYS[1], 'owner', 'fence', 'since')`
