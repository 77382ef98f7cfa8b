/**
 * schema: what Lock/Postgres has in a database, and the names of keys there.
 *
 * DESIGN. All stands in the schema `holdfast`, and each statement names it: a fence that were found by `search_path` would be another
 * sequence for another client, while the lock is one per database. `lock_fence` numbers the grants of advisory locks. A row of
 * `lock_lease` is a lease, or the highest fence that a guarded transaction has brought. Its fence is part of a unique key, so a
 * statement that changes it waits for the transactions that have the row `FOR KEY SHARE`, and a renewal does not. Rows stay: a fence
 * is the memory of its key. `lock_holder` says who holds an advisory lock; it is not logged, and is believed only while `pg_locks`
 * shows the same process.
 */
import * as crypto from "node:crypto"
import * as os from "node:os"

export const self = `${os.hostname()}:${process.pid}`

/** 64 bits of the digest as a signed number, in text because a JavaScript number has 53 bits. */
export const idOf = (namespace: string, key: string): string =>
  crypto.createHash("sha256").update(namespace).update("\0").update(key).digest()
    .readBigInt64BE(0).toString()

/** The name of a row. JSON has no byte that Postgres refuses; an index takes 2,700 bytes at most. */
export const nameOf = (realm: string, key: string): string => {
  const name = JSON.stringify([realm, key])
  return name.length <= 500 ? name : crypto.createHash("sha256").update(name).digest("hex")
}

/** Makes what is missing, one session at a time. Fences begin at the server's clock in µs: above those of a lost database. */
export const createSql = `DO $$ BEGIN
IF to_regclass('holdfast.lock_fence') IS NULL OR to_regclass('holdfast.lock_lease') IS NULL
  OR to_regclass('holdfast.lock_holder') IS NULL THEN
  PERFORM pg_advisory_xact_lock(${idOf("holdfast", "schema")});
  CREATE SCHEMA IF NOT EXISTS holdfast;
  IF to_regclass('holdfast.lock_fence') IS NULL THEN
    EXECUTE format('CREATE SEQUENCE holdfast.lock_fence AS bigint START %s CACHE 1 NO CYCLE',
      (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  END IF;
  CREATE TABLE IF NOT EXISTS holdfast.lock_lease (name text PRIMARY KEY, fence bigint NOT NULL, owner text,
    since timestamptz, expires_at timestamptz, wanted boolean NOT NULL DEFAULT false, UNIQUE (name, fence))
    WITH (fillfactor = 50);
  CREATE UNLOGGED TABLE IF NOT EXISTS holdfast.lock_holder (id bigint PRIMARY KEY, pid int NOT NULL,
    fence bigint NOT NULL, holder text NOT NULL, since timestamptz NOT NULL);
END IF; END $$`
