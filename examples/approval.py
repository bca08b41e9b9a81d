"""A person in the loop: the function waits for a word, which is on the ledger with the name of who gave it.

colonies dev
colonies worker start approval:worker --name w1
python approval.py
"""

import asyncio

import colonies

worker = colonies.Worker("pages")


@worker.function
async def publish(page: str) -> str:
    word = await colonies.signal("approve", timeout_s=3600)
    if not word.data:
        raise colonies.Fail(f"{word.by} said no")
    return f"{page}, approved by {word.by}"


async def main() -> None:
    async with colonies.connect() as colony:
        process = await colony.submit(publish.call("about us"))
        await process.signal("approve", True)
        print(await process.result())


if __name__ == "__main__":
    asyncio.run(main())
