/** errors: how the use and the close of a Shared fail. */
import * as Data from "effect/Data"

/**
 * The owner's scope has begun to close; nothing was acquired.
 *
 * @category errors
 * @since 0.1.0
 */
export class SharedClosed extends Data.TaggedError("SharedClosed")<{
  /** Its name, with the key; a field called `name` would replace the error's own. */
  readonly shared: string
}> {
  override get message(): string {
    return `Shared "${this.shared}" is closed: the scope it was made in has begun to close. `
      + "Make it in a scope that outlives its users."
  }
}

/**
 * There are `capacity` instances, and all of them are in use.
 *
 * @category errors
 * @since 0.1.0
 */
export class SharedFull extends Data.TaggedError("SharedFull")<{
  readonly shared: string
  readonly capacity: number
}> {
  override get message(): string {
    return `Shared "${this.shared}" has ${this.capacity} instances and all of them are in use. `
      + "Raise `capacity`, or use fewer keys at a time."
  }
}

/**
 * A fiber that uses an instance closed the owner's scope, and would have waited for itself. A defect in the exit of the close;
 * the instance is released when its last user leaves.
 *
 * @category errors
 * @since 0.1.0
 */
export class SharedClosedByHolder extends Data.TaggedError("SharedClosedByHolder")<{
  readonly shared: string
  /** The fiber's name, such as `#12`. */
  readonly fiber: string
  /** The line that asked for the instance, if a ledger in force records lines. */
  readonly site: string | undefined
}> {
  override get message(): string {
    const where = this.site === undefined ? "" : ` since ${this.site.split("\n", 1)[0]}`
    return `Fiber ${this.fiber} closes the scope of shared "${this.shared}" while it uses an instance${where}: `
      + "it would wait for itself. The close does not wait for this instance; end the use before the scope."
  }
}
