/**
 * `npm run bench -- lock-races`: 2,000 waits of each of our locks that are interrupted at a random moment, while another process takes
 * and releases the key. Each must end within 250 ms, and leave no grant.
 */
import { digits, quantile, row, wanted, withServers } from "./servers.ts"
import { sides } from "./sides.ts"
import { Worker } from "./worker.ts"

const rounds = 2000
const lanes = 4
const withinMillis = 250
const ttl = 5000

export const run = (): Promise<never> =>
  withServers(async (servers) => {
    let isMet = true
    row("", ["p50 ms", "p99 ms", "most ms", "left"], 10)
    // The bare one shows what the machine itself adds.
    const interruptible = wanted(sides, "lock-races").filter((
      { isInterruptible, isOurs, name, server }
    ) => isInterruptible && server !== "process" && (isOurs || name.startsWith("bare")))
    for (const side of interruptible) {
      const [one, two] = [0, 1].map(() => new Worker(side, servers.place(ttl)))
      await Promise.all([one!.ready, two!.ready])
      const over = new AbortController()
      const contend = async (): Promise<void> => {
        while (!over.signal.aborted) await one!.ask("contend", "races", 4, 500)
      }
      const contending = contend()
      const lane = () => two!.ask("interrupt", "races", rounds / lanes)
      const took = (await Promise.all(Array.from({ length: lanes }, lane))).flat()
      over.abort()
      await contending
      // Sooner than a lease ends by itself.
      one!.keep("races")
      const isLeft = await one!.until("held", ttl / 2) === undefined
      const most = quantile(took, 1)
      if (side.isOurs) isMet &&= !isLeft && most <= withinMillis
      const numbers = [quantile(took, 0.5), quantile(took, 0.99), most].map(digits)
      row(side.name, [...numbers, isLeft ? "a grant" : "none"], 10)
      await Promise.all([one!.end(), two!.end()])
    }
    return isMet
  })
