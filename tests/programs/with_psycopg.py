"""psycopg 3: a connection a thread."""

import sys

import beside
import psycopg

client = f"host=127.0.0.1 port={sys.argv[1]} user=postgres dbname=postgres"


def task(number):
    with psycopg.connect(client) as connection, connection.cursor() as cursor:
        cursor.execute("select %s::int from pg_sleep(0.1)", [number])
        first = cursor.fetchone()[0]
        cursor.execute("create temporary table numbers (n int)")
        with cursor.copy("copy numbers from stdin") as copy:
            for n in range(number):
                copy.write_row([n])
        cursor.execute("select sum(n) from numbers")
        total = cursor.fetchone()[0]
        try:
            cursor.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero as error:
            wrong = error.sqlstate
        connection.rollback()
    return first, total, wrong


beside.run(task)
