/**
 * Postgres/state: whether a statement may leave something in its session: settings, roles, temporary tables, locks, cursors, …
 *
 * DESIGN. The server does not say so: a function that calls `set_config` answers like any other, and only a few settings are
 * reported. So a text is clean only if each of its statements begins with a command, and each of its calls names a function of
 * the server, that leaves nothing behind. The text is not parsed: literals and comments count as text, so a mistake costs a
 * reset and never leaves one out. A reset (DISCARD ALL) costs the server as much as an empty statement, about 40 µs, and
 * nobody waits for it but a next user that comes sooner. Verdicts are cached by text.
 * To allow a function: `harmless`. It must neither call others' code nor keep anything beyond its transaction.
 *
 * INVARIANTS
 * - PgState-1 With `reset: "dirty"` nothing that a statement does in its own text reaches the next user of its session.
 *
 * NOT DONE what the text does not show: triggers, views, column defaults and operators that call such functions, a function of the user
 * with the name of one of the server, and the last value of a sequence behind a column default. For those: `reset: "always"`.
 */

/** "spoilt": no statement undoes it, so the session is closed. */
export type Verdict = "clean" | "dirty" | "spoilt"

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/))

const commands = words(`
  select insert update delete with values table merge begin start commit end rollback abort savepoint release
  show explain analyze vacuum truncate notify lock create alter drop comment grant revoke refresh reindex
`)

/** Keywords and types that may stand before a parenthesis. */
const keywords = words(`
  all and any array as between by case cast check coalesce conflict cross cube distinct else end except exists explain
  fetch filter from full greatest group grouping having in inner intersect interval into is isnull join key lateral least left
  like ilike limit materialized natural not notnull nullif offset on only or order outer over overlaps partition primary
  returning right rollup row rows select set sets similar some then union unique update using values when where window with
  within xmlelement
  bit bpchar char character decimal float numeric time timestamp timestamptz timetz varbit varchar varying
`)

const harmless = words(`
  abs acos age array_agg array_append array_cat array_dims array_length array_lower array_ndims array_position
  array_positions array_prepend array_remove array_replace array_to_json array_to_string array_upper ascii asin atan
  atan2 avg bit_and bit_length bit_or bool_and bool_or btrim cardinality cbrt ceil ceiling char_length chr
  clock_timestamp col_description concat concat_ws convert_from convert_to corr cos cot count covar_pop covar_samp
  cume_dist current_database current_schema current_schemas current_setting date date_bin date_part date_trunc decode
  degrees dense_rank div encode every exp extract factorial first_value floor format format_type gcd gen_random_uuid
  generate_series generate_subscripts get_bit get_byte has_column_privilege has_schema_privilege has_table_privilege
  hashtext hashtextextended host initcap isempty isfinite json_agg json_array_elements json_array_elements_text
  json_array_length json_build_array json_build_object json_each json_each_text json_extract_path
  json_extract_path_text json_object json_object_agg json_object_keys json_populate_record json_populate_recordset
  json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg jsonb_array_elements
  jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
  jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys
  jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
  jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls
  jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval lag last_value lead
  left length ln log log10 lower lower_inf lpad ltrim make_date make_interval make_time make_timestamp
  make_timestamptz max md5 min mod mode now nth_value ntile num_nonnulls num_nulls obj_description octet_length
  overlay parse_ident percent_rank percentile_cont percentile_disc pg_advisory_xact_lock pg_advisory_xact_lock_shared
  pg_backend_pid pg_cancel_backend pg_column_size pg_database_size pg_get_constraintdef pg_get_expr pg_get_indexdef
  pg_get_viewdef pg_is_in_recovery pg_notify pg_postmaster_start_time pg_relation_size pg_size_pretty pg_sleep
  pg_sleep_for pg_table_is_visible pg_terminate_backend pg_total_relation_size pg_try_advisory_xact_lock
  pg_try_advisory_xact_lock_shared pg_typeof phraseto_tsquery pi plainto_tsquery position power quote_ident
  quote_literal quote_nullable radians random range_agg range_merge rank regexp_count regexp_instr regexp_like
  regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace
  reverse right round row_number row_to_json rpad rtrim scale session_user setweight sha224 sha256 sha384 sha512 sign
  sin split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
  string_to_table strpos substr substring sum tan timeofday timezone to_char to_date to_hex to_json to_jsonb to_number
  to_regclass to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trim_scale trunc ts_headline
  ts_rank ts_rank_cd txid_current unnest upper upper_inf var_pop var_samp variance version websearch_to_tsquery
  width_bucket
`)

/** Loads a library, fixes `random()`, or connects the session to other servers. */
const spoils =
  /\bload\s+e?'|\b(?:setseed|dblink_connect|dblink_connect_u|pg_replication_origin_session_setup)\W*\(/i

/** Ends with its transaction; with a literal `true` so does what `set_config` does. */
const isLocal = /^\s*set\s+(?:local|transaction|constraints)\b/i
const localConfig =
  /\bset_config\s*\(\s*(?:'[\w.]*'|\$\d+)\s*,\s*(?:'[^']*'|\$\d+(?:\s*::\s*\w+)?)\s*,\s*true\s*\)/gi

/** A parenthesis and the name before it, which is that of a function unless it follows one of these words. */
const calls = /(?:\b(into|as|with|recursive)\s+)?([\w$".\u0080-\uffff]*)\s*\(/gi
/** A comment between a name and its parenthesis. */
const hidden = /(?:\*\/|--[^\n]*\n)\s*\(/

const isCleanCall = ([, before, name = ""]: RegExpMatchArray): boolean => {
  if (name === "" || before !== undefined) return true
  const lower = name.toLowerCase().replace(/^pg_catalog\./, "")
  return keywords.has(lower) || harmless.has(lower)
}

const isCleanStatement = (statement: string): boolean => {
  const [word = ""] = /\w+/.exec(statement) ?? []
  return statement.trim() === "" || isLocal.test(statement)
    || (/^[\s(]*\w/.test(statement) && commands.has(word.toLowerCase()))
}

const judge = (text: string): Verdict => {
  if (spoils.test(text)) return "spoilt"
  if (/\b(?:temp|temporary|pg_temp)/i.test(text) || hidden.test(text)) return "dirty"
  if (!text.split(";").every(isCleanStatement)) return "dirty"
  for (const call of text.replace(localConfig, "").matchAll(calls)) {
    if (!isCleanCall(call)) return "dirty"
  }
  return "clean"
}

/** Guarded: written by `verdictOf` alone. */
const verdicts = new Map<string, Verdict>()
const mostVerdicts = 1000
const longestText = 4096

export const verdictOf = (text: string): Verdict => {
  const known = verdicts.get(text)
  if (known !== undefined) return known
  const verdict = judge(text)
  if (text.length <= longestText) {
    if (verdicts.size >= mostVerdicts) verdicts.clear()
    verdicts.set(text, verdict)
  }
  return verdict
}
