"""The smallest script that asks a model: what the runner's start is measured against."""

import asyncio

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI()
    await client.responses.create(model="gpt-5.5", input="hello", store=False)


asyncio.run(main())
