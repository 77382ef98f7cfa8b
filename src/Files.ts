/**
 * Files: writes that are whole or not at all, log files that lose no line, and temporary files that are gone with their owner.
 *
 * DESIGN. A new content is gathered in a draft (Files/drafts.ts): a file created exclusively beside its destination, written, and then
 * either published (fsync, rename, fsync of the directory) or removed. `writeAtomic` and `atomicSink` are a draft and its content;
 * `Http.download` is a draft and a body. The rooms call node:fs, not the platform's `FileSystem`: that has no lstat, fchown or fchmod,
 * and does not wait for a call it was interrupted in: the kernel would still change the file after the fiber had ended.
 * Reads, watches and the rest of `FileSystem` are good as they are, and not repeated here.
 *
 * INVARIANTS
 * - Files-1 (F1) At every instant, after any interruption and after a kill, the destination holds the old content or the new
 *   content, never a mix, and never nothing where there was something.
 * - Files-2 (F2) Once an interrupt is seen, nothing of ours changes any file any more.
 * - Files-3 (F4) A draft that was not published is removed, on failure and on interruption; a draft that is already gone is
 *   no failure. What a killed process left is removed by the next process that writes in that directory.
 * - Files-4 (L8) The operating system's code is in `FileError.code`, also where the platform says "Unknown".
 * - Files-5 Owner and mode go to the file that was written, never to what its path leads to by now.
 * - Files-6 (L6) The writers of one file in one process take turns, first come, first served, by whatever path they name it.
 * - Files-7 (F4) A temporary file or directory is removed with its owner; that it is gone already is no failure.
 * - Files-8 Of all processes of a host one at a time is in a `lockedPath` of a file; a killed one frees it.
 *
 * COST (2026-11, 4 KiB, 2 cores) `npm run bench -- Files` shows it beside the same calls by hand. Calls about a file (lstat, open, fchmod,
 *   close) take microseconds on a local disk and are made at once; write, fsync and rename wait in Node's threads.
 * NOT DONE: extended attributes, ACLs and hard links of the replaced file (a rename cannot keep them); a refusal of symbolic links
 *   at the destination, which who may write in its directory can plant; Windows is not tested.
 * SOURCES npm write-file-atomic #28, PR #17; atomically PR #18 (short writes truncated a vault); gsd-core #1540 (never fall
 *   back to a plain write).
 *
 * @since 0.1.0
 */
export {
  type Bytes,
  type Draft,
  draft,
  draftOf,
  type DraftOfOptions,
  type DraftOptions,
  type Durability,
  publish,
  type PublishOptions,
  sweep
} from "./Files/drafts.ts"
export { FileError, toFileError } from "./Files/errors.ts"
export { lockedPath } from "./Files/lockedPath.ts"
export {
  type LogFile,
  logFile,
  LogFileClosed,
  LogFileFull,
  type LogFileOptions,
  type LogFileStats,
  type RotateOptions
} from "./Files/logFile.ts"
export { layerLogger, type LoggerOptions } from "./Files/logger.ts"
export { tail, type TailOptions } from "./Files/tail.ts"
export { tempDirectory, tempFile, type TempOptions } from "./Files/temp.ts"
export { atomicSink, writeAtomic, type WriteOptions } from "./Files/writeAtomic.ts"
