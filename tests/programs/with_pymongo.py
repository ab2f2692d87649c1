"""pymongo: a client that 100 threads share. Its monitors are threads as well."""

import sys

import beside
import pymongo

client = pymongo.MongoClient(
    "127.0.0.1",
    int(sys.argv[1]),
    maxPoolSize=100,
    directConnection=True,
    retryWrites=False,
    serverSelectionTimeoutMS=90_000,
)
numbers = client.database[sys.argv[2]]
numbers.insert_one({"_id": "counter", "value": 0})


def task(number):
    numbers.insert_many([{"number": number, "n": n} for n in range(10)])
    first = sorted(each["n"] for each in numbers.find({"number": number}))
    numbers.update_one({"_id": "counter"}, {"$inc": {"value": 1}})
    try:
        client.database.command("nonsense")
    except pymongo.errors.OperationFailure as error:
        wrong = error.code
    return first, wrong


beside.run(task)
print(numbers.find_one({"_id": "counter"})["value"], len(list(numbers.find())))
client.close()
