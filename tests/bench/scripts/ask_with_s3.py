"""The smallest script that looks at a bucket, puts an object there and asks a model. Arguments: bucket, key."""

import asyncio
import sys

import boto3
from openai import AsyncOpenAI


async def main() -> None:
    bucket, key = sys.argv[1:]
    s3 = boto3.client("s3")
    s3.list_objects_v2(Bucket=bucket, Prefix=key)
    s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    client = AsyncOpenAI()
    await client.responses.create(model="gpt-5.5", input="hello", store=False)


asyncio.run(main())
