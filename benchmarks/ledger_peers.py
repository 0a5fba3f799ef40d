"""The peers of the ledger benchmark: the same payments in SQL, three ways, on the server that our journal uses. Owns their schema and their best honest form.

They keep less than the ledger: a transfer row by id and two balances, no holds, caps, chains or statements. Wallets cannot fall below zero (a CHECK).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import LiteralString

import numpy as np
import psycopg

from benchmarks.ledger_load import Batch, Load

CONNECTIONS = 8

_SCHEMA: LiteralString = """
    DROP SCHEMA IF EXISTS peer CASCADE;
    CREATE SCHEMA peer;
    SET search_path = peer;
    CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL, CHECK (id < 0 OR balance >= 0)) WITH (fillfactor = 50);
    CREATE TABLE transfer (id uuid PRIMARY KEY, debit bigint NOT NULL, credit bigint NOT NULL, amount bigint NOT NULL);
    CREATE FUNCTION pay(payment uuid, wallet bigint, till bigint, much bigint) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO transfer VALUES (payment, wallet, till, much) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN true;
        END IF;
        UPDATE account SET balance = balance - much WHERE id = wallet AND balance >= much;
        IF NOT FOUND THEN
            DELETE FROM transfer WHERE id = payment;
            RETURN false;
        END IF;
        UPDATE account SET balance = balance + much WHERE id = till;
        RETURN true;
    END $$;
"""
_BATCH: LiteralString = """
    WITH batch AS (
        SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[]) AS b (id, debit, credit, amount)
    ), fresh AS (
        INSERT INTO transfer SELECT * FROM batch ON CONFLICT DO NOTHING RETURNING debit, credit, amount
    ), change AS (
        SELECT id, sum(much) AS much FROM (SELECT debit AS id, -amount AS much FROM fresh UNION ALL SELECT credit, amount FROM fresh) AS sides GROUP BY id
    ), moved AS (
        UPDATE account a SET balance = a.balance + c.much FROM change c WHERE a.id = c.id
    )
    SELECT count(*) FROM fresh
"""


def prepare(url: str, load: Load) -> None:
    """Fresh tables with the load's wallets (funded) and tills (negative ids)."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_SCHEMA)
        with connection.cursor() as cursor, cursor.copy("COPY peer.account FROM STDIN") as copy:
            for wallet in range(load.wallets):
                copy.write_row((wallet, load.funds))
            for till in range(load.tills):
                copy.write_row((-1 - till, 0))
        connection.execute("VACUUM ANALYZE peer.account")


def _in_threads(url: str, seconds: float, work: Callable[[psycopg.Connection[tuple[object, ...]], Callable[[], bool]], int]) -> float:
    """Payments a second over CONNECTIONS connections."""
    done, errors = [0] * CONNECTIONS, []
    gate = threading.Barrier(CONNECTIONS + 1)
    until = [0.0]

    def run(index: int) -> None:
        try:
            with psycopg.connect(url, autocommit=True, options="-c search_path=peer", prepare_threshold=1) as connection:
                gate.wait()
                done[index] = work(connection, lambda: time.perf_counter() < until[0])
        except Exception as error:
            errors.append(error)
            gate.abort()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    until[0] = time.perf_counter() + 3600
    gate.wait()
    began = time.perf_counter()
    until[0] = began + seconds
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(done) / (time.perf_counter() - began)


def row_locking(url: str, load: Load, seconds: float) -> float:
    """(a) One transaction a payment: insert, two updates that lock their rows; five statements in one round trip (pipeline)."""

    def work(connection: psycopg.Connection[tuple[object, ...]], more: Callable[[], bool]) -> int:
        count = 0
        while more():
            for payment, wallet, till, amount in _rows(load.batch()):
                if not more():
                    break
                with connection.pipeline():
                    connection.execute("BEGIN")
                    connection.execute("INSERT INTO transfer VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", (payment, wallet, till, amount))
                    connection.execute("UPDATE account SET balance = balance - %s WHERE id = %s", (amount, wallet))
                    connection.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, till))
                    connection.execute("COMMIT")
                count += 1
        return count

    return _in_threads(url, seconds, work)


def function(url: str, load: Load, seconds: float) -> float:
    """(b) One call of a PL/pgSQL function a payment, each its own transaction."""

    def work(connection: psycopg.Connection[tuple[object, ...]], more: Callable[[], bool]) -> int:
        count = 0
        while more():
            for row in _rows(load.batch()):
                if not more():
                    break
                connection.execute("SELECT pay(%s::uuid, %s::bigint, %s::bigint, %s::bigint)", row)
                count += 1
        return count

    return _in_threads(url, seconds, work)


def set_based(url: str, load: Load, seconds: float) -> float:
    """(c) One statement and one transaction a batch, on one connection: batches lock the same tills, so more connections wait for each other."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=peer", prepare_threshold=1) as connection:
        began, count = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            batch = load.batch()
            ids = [batch.key[i : i + 16].hex() for i in range(0, len(batch.key), 16)]
            tills = (-1 - batch.unit.astype(np.int64)).tolist()
            cursor = connection.execute(_BATCH, (ids, batch.subject.tolist(), tills, batch.amount.tolist()))
            row = cursor.fetchone()
            if row is None or row[0] != len(ids):
                raise AssertionError(f"the set-based peer took {row} of {len(ids)} payments")
            count += len(ids)
        return count / (time.perf_counter() - began)


def _rows(batch: Batch) -> list[tuple[str, int, int, int]]:
    ids = [batch.key[i : i + 16].hex() for i in range(0, len(batch.key), 16)]
    return list(zip(ids, batch.subject.tolist(), (-1 - batch.unit.astype(np.int64)).tolist(), batch.amount.tolist(), strict=True))
