"""A workflow that grows while it runs: a node decides how many nodes there are between itself and the next.

colonies dev
colonies worker start map_reduce:worker --name w1
python map_reduce.py
"""

import asyncio

import colonies

worker = colonies.Worker("words")


@worker.function
def split(text: str) -> int:
    lines = text.splitlines()
    for line in lines:
        colonies.current().add(count.call(line), between=True)
    return len(lines)


@worker.function
def count(line: str) -> dict[str, int]:
    words = line.split()
    return {word: words.count(word) for word in words}


@worker.function
def reduce() -> dict[str, int]:
    total: dict[str, int] = {}
    for name, counts in colonies.current().inputs.items():
        if name != "split":
            for word, times in counts.items():
                total[word] = total.get(word, 0) + times
    return total


async def main() -> None:
    workflow = colonies.Workflow("words")
    first = workflow.add(split.call("the cat\nthe dog and\nthe bird"))
    total = workflow.add(reduce.call(), after=[first])
    async with colonies.connect() as colony:
        handle = await colony.submit(workflow)
        print(await handle.result(total))


if __name__ == "__main__":
    asyncio.run(main())
