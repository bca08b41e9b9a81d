"""A workflow: one node for each file, and one for all of their results.

colonies dev
colonies worker start workflow:worker --name w1
python workflow.py
"""

import asyncio

import colonies

worker = colonies.Worker("files")


@worker.function
def find(folder: str) -> list[str]:
    return [f"{folder}/{name}.txt" for name in ("ada", "grace", "alan")]


@worker.function
def measure(path: str, unit: int) -> int:
    return len(path) * unit


@worker.function
def add(sizes: list[int]) -> int:
    return sum(sizes)


async def main() -> None:
    workflow = colonies.Workflow("sizes")
    unit = workflow.parameter("unit", 2)
    files = workflow.add(find.call("texts"))
    sizes = workflow.map(lambda path: measure.call(path, unit), files.output)
    total = workflow.add(add.call(sizes.output))
    async with colonies.connect() as colony:
        handle = await colony.submit(workflow)
        print(await handle.result(sizes), await handle.result(total))


if __name__ == "__main__":
    asyncio.run(main())
