/** Mutants of Files and its rooms; test/mutants.byTests.slow.test.ts says how to add one. */
import { of } from "./mutant.ts"

const drafts = of("Files/drafts.ts", "Files.test.ts")
const writeAtomic = of("Files/writeAtomic.ts", "Files.test.ts")
const temp = of("Files/temp.ts", "Files/temp.test.ts")
const logFile = of("Files/logFile.ts", "Files/logFile.test.ts")
const generations = of("Files/generations.ts", "Files/logFile.test.ts")
const tail = of("Files/tail.ts", "Files/tail.test.ts")

export const mutants = [
  drafts(
    "what lies at the draft's path is published, whatever it is",
    "    return found.ino === ino && found.dev === dev",
    "    return found.ino > 0n || dev === ino",
    "Drafts-2: only the file that was written"
  ),
  writeAtomic(
    "the mode goes to what the draft's path leads to",
    "copyOwnership(draft, old, mode))",
    "fs.chmodSync(draft.path, mode ?? old?.mode ?? 0o666))",
    "Files-5, Drafts-2: a link planted"
  ),
  drafts(
    "a file that another has put at the draft's path is removed",
    "!this.#published && leadsTo(this.path, this.inode)",
    "!this.#published",
    "Drafts-2: only the file that was written"
  ),
  drafts(
    "the drafts of living processes are swept",
    "? !isAlive(Number(pid), start!)",
    "? true",
    "Drafts-1"
  ),
  drafts(
    "a process is taken for an earlier one with its PID",
    "return now === \"\" || start === \"0\" || now === start",
    "return now !== undefined || start === \"0\"",
    "Drafts-1"
  ),
  drafts(
    "fresh drafts of other hosts are swept",
    "Date.now() - changedAt() > silence",
    "changedAt() < Date.now() + silence",
    "Drafts-1"
  ),
  drafts(
    "a link with the name of a draft is swept",
    " || !fs.lstatSync(path).isFile()",
    "",
    "Drafts-1"
  ),
  drafts(
    "what the kernel did not take of several chunks is skipped",
    "...chunks.slice(whole + 1)]",
    "...chunks.slice(whole + 2)]",
    "writes one chunk or many"
  ),
  writeAtomic(
    "a directory that is reached by a link has writers of its own",
    "  return directory === undefined\n",
    "  return directory !== null\n",
    "Files-6"
  ),
  temp(
    "that a temporary file is gone is a failure",
    "force: true",
    "force: false",
    "Files-7: private"
  ),
  logFile(
    "a part of a line stays at the end of a full disk",
    "    if (batch.from === 0) return\n",
    "    if (batch.from >= 0) return\n",
    "LogFile-3"
  ),
  logFile(
    "the release does not write what is buffered",
    "      await this.#pumping\n      await this.#request(() => this.#file.sync())\n",
    "",
    "LogFile-4, LogFile-7"
  ),
  logFile(
    "a flush overtakes the lines before it",
    "after: this.#accepted, run",
    "after: 0, run",
    "LogFile-1: flush"
  ),
  logFile(
    "lines are accepted after the release",
    "    if (this.#isClosed) return new LogFileClosed({ path: this.path })\n",
    "",
    "LogFile-4, LogFile-7"
  ),
  logFile(
    "dropped lines keep their room",
    "      this.#free(this.#sizes[this.#head++]!)\n",
    "      this.#head++\n",
    "LogFile-2"
  ),
  logFile(
    "a batch goes over the size of a file",
    "end < this.#lines.length && size + this.#sizes[end]! <= room",
    "end < this.#lines.length && size <= room",
    "LogFile-5: keeps the newest"
  ),
  logFile(
    "an interval that has passed rotates nothing",
    "this.#periodOf(this.#now()) > this.#period",
    "this.#periodOf(this.#now()) < this.#period",
    "LogFile-5: rotates with the first line"
  ),
  generations(
    "a file that was compressed before a kill is there twice",
    "    else if (endings.size === 2) await remove(plain)\n",
    "",
    "LogFile-5: keeps the newest"
  ),
  generations(
    "one more file than `keep` stays",
    "found.length - keep",
    "found.length - keep - 1",
    "LogFile-5: keeps the newest"
  ),
  tail(
    "a line that is not whole yet is lost",
    "this.#partial = lines.pop()!",
    "this.#partial = lines.pop()!.slice(0, 0)",
    "Tail-1, Tail-2, Tail-3"
  ),
  tail(
    "a file that was cut is read on from where it was longer",
    "    if (ours.size < this.#position) this.#begin(0)\n",
    "",
    "Tail-1, Tail-2, Tail-3"
  )
]
