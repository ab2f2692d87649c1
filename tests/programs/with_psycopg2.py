"""psycopg 2: a connection a thread. Queries wait in C, or by a Python function if asked."""

import sys

import beside
import psycopg2
import psycopg2.extras

if sys.argv[2:] == ["callback"]:
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)

client = f"host=127.0.0.1 port={sys.argv[1]} user=postgres dbname=postgres"


def task(number):
    connection = psycopg2.connect(client)
    with connection, connection.cursor() as cursor:
        cursor.execute("select %s from pg_sleep(0.5)", [number])
        first = cursor.fetchone()[0]
        cursor.execute("select sum(n) from generate_series(1, %s) n", [number])
        total = cursor.fetchone()[0]
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select 1 / 0")
    except psycopg2.errors.DivisionByZero as error:
        wrong = error.pgcode
    connection.close()
    return first, total, wrong


beside.run(task, calls=10)
