"""redis-py: one client for all threads; a blocking pop, pipelines and a subscription."""

import sys

import beside
import redis

client = redis.Redis(port=int(sys.argv[1]), decode_responses=True, max_connections=300)


def task(number):
    nothing = client.blpop([f"nothing {number}"], timeout=0.1)
    client.set(f"key {number}", number)
    with client.pipeline() as pipeline:
        answers = pipeline.get(f"key {number}").incr(f"key {number}").incr("counter").execute()
    with client.pubsub() as subscription:
        subscription.subscribe(f"channel {number}")
        confirmed = next(subscription.listen())["data"]
        client.publish(f"channel {number}", "word")
        heard = next(subscription.listen())["data"]
    return nothing, answers[:2], confirmed, heard


beside.run(task)
print("counter", client.get("counter"))
client.flushall()
