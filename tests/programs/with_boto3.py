"""boto3: a client that 100 threads share, and its transfers' own threads, at moto's server."""

import io
import sys

import beside
import boto3
from botocore.config import Config

client = boto3.client(
    "s3",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
    config=Config(
        max_pool_connections=100,
        read_timeout=90,
        connect_timeout=90,
        retries={"total_max_attempts": 1},
    ),
)
bucket = sys.argv[2]
client.create_bucket(Bucket=bucket)


def task(number):
    name = f"object {number}"
    client.put_object(Bucket=bucket, Key=name, Body=b"x" * number)
    first = len(client.get_object(Bucket=bucket, Key=name)["Body"].read())
    file = io.BytesIO()
    client.download_fileobj(bucket, name, file)
    try:
        client.get_object(Bucket=bucket, Key="missing")
    except client.exceptions.NoSuchKey as error:
        wrong = error.response["Error"]["Code"]
    return first, len(file.getvalue()), wrong


beside.run(task)
objects = client.list_objects_v2(Bucket=bucket)["Contents"]
print(len(objects), sum(each["Size"] for each in objects))
