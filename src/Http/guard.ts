/** Http/guard: addresses that a public server must not send us to. ../Http.ts has the invariants. */
import * as Effect from "effect/Effect"
import { lookup } from "node:dns/promises"
import { BlockList, isIP } from "node:net"

const inside = new BlockList()
for (const [net, prefix] of [["0.0.0.0", 8], ["127.0.0.0", 8], ["169.254.0.0", 16]] as const) {
  inside.addSubnet(net, prefix, "ipv4")
}
for (const [net, prefix] of [["10.0.0.0", 8], ["172.16.0.0", 12], ["192.168.0.0", 16]] as const) {
  inside.addSubnet(net, prefix, "ipv4")
}
for (const [net, prefix] of [["::", 127], ["fe80::", 10], ["fc00::", 7]] as const) {
  inside.addSubnet(net, prefix, "ipv6")
}

const isInside = (address: string): boolean =>
  inside.check(address, isIP(address) === 6 ? "ipv6" : "ipv4")

/** Whether a host is this machine, its link or its private network; also by its name. A name without an address is not. */
export const isPrivate = ({ hostname }: URL): Effect.Effect<boolean> => {
  const host = hostname.replace(/^\[|\]$/g, "")
  if (isIP(host) !== 0) return Effect.succeed(isInside(host))
  return Effect.promise(() =>
    lookup(host, { all: true }).then(
      (found) => found.some(({ address }) => isInside(address)),
      () => false
    )
  )
}
