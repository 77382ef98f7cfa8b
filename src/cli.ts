#!/usr/bin/env node
/**
 * The `holdfast` command. `holdfast mirror <urls.txt> --to <dir>` is the main job; `holdfast demo` shows it.
 *
 * DESIGN. A loader: the packages that the command needs are optional peers, and the first that is missing would end Node with a
 * stack trace before any line of ours ran.
 *
 * EXIT CODES 0 all done, also after a signal; 1 some items failed; 2 bad arguments, an unreadable list or ledger, or a package
 * that is not installed; 3 held elsewhere; 75 a signal came and URLs are left: the same command resumes; 130/143 ended or forced
 * by a signal without a drain.
 */
import process from "node:process"
import { reportMissing } from "./cli/packages.ts"

try {
  await import("./cli/program.ts")
} catch (error) {
  if (!reportMissing(error)) throw error
  process.exitCode = 2
}
