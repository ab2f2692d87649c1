"""mysqlclient: a connection a thread. Queries wait in C."""

import sys

import beside
import MySQLdb


def task(number):
    connection = MySQLdb.connect(
        host="127.0.0.1", port=int(sys.argv[1]), user="root", connect_timeout=60
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("select sleep(0.5), %s", [number])
        first = cursor.fetchone()
        cursor.execute("select repeat(%s, 100000)", ["x"])
        second = len(cursor.fetchone()[0])
        try:
            cursor.execute("select nonsense")
        except MySQLdb.OperationalError as error:
            wrong = error.args[0]
    return first, second, wrong


beside.run(task, calls=10)
