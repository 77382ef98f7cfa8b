/** Brackets as they are where this version of Effect does not run our frames: each is a mask. */
import { frames } from "../../src/internal/runtime.ts"

/** Of runs one at a time: the switch is one for the process. */
export const withoutFrames =
  <A extends ReadonlyArray<any>, B>(run: (...args: A) => Promise<B>) =>
  async (...args: A): Promise<B> => {
    const { areSound } = frames
    frames.areSound = false
    try {
      return await run(...args)
    } finally {
      frames.areSound = areSound
    }
  }
