"""PyMySQL: a connection a thread."""

import sys

import beside
import pymysql


def task(number):
    connection = pymysql.connect(
        host="127.0.0.1", port=int(sys.argv[1]), user="root", connect_timeout=60
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("select sleep(0.1), %s", [number])
        first = cursor.fetchone()
        cursor.execute("select repeat(%s, 100000)", ["x"])
        second = len(cursor.fetchone()[0])
        try:
            cursor.execute("select nonsense")
        except pymysql.err.OperationalError as error:
            wrong = error.args[0]
    return first, second, wrong


beside.run(task)
