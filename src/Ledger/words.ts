/**
 * words: text that comes from outside (names, lines, server messages), made safe to print.
 */

/**
 * Control characters (C0, C1), line and paragraph separators, changes of direction, invisible format characters, half
 * surrogate pairs and what XML does not allow. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
 */
const unprintable =
  // oxlint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]|\p{Surrogate}/gu

/**
 * THE function for text that reaches a terminal, a log, a report or a page and that this library did not write itself. The
 * result is one line: a line break or a tab becomes a space, any other unprintable character its escape, such as `\u{9b}`.
 */
export const printable = (text: string): string =>
  text.replace(
    unprintable,
    (found) => found === "\n" || found === "\t" ? " " : `\\u{${found.codePointAt(0)!.toString(16)}}`
  )
