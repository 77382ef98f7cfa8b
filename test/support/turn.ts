/**
 * Gives the event loop a turn after each test. A file of explorations computes for a minute without one; then vitest counts the answers
 * that wait for it as lost, and the run as failed.
 */
import { afterEach } from "vitest"

afterEach(() => new Promise<void>((resolve) => setImmediate(resolve)))
