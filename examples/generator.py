"""Three pictures make an album; two that have waited for five seconds make one as well.

Start `colonies dev`, in this folder `colonies worker start generator:worker --name framer`, and then this.
"""

import asyncio

import colonies
from colonies.generators import RunNow

worker = colonies.Worker("albums")


@worker.function
def shrink(path: str) -> str:
    """A picture's small copy."""
    return path.replace(".png", "-small.png")


@worker.function
def bind(pictures: list[str]) -> str:
    """An album of pictures."""
    return " + ".join(pictures)


ALBUMS = {"runtimetype": "albums"}
ALBUM = {
    "nodes": [
        {
            "name": "small",
            "func": "shrink",
            "map": {"$packed": ""},
            "args": [{"$item": ""}],
            "conditions": ALBUMS,
        },
        {"name": "album", "func": "bind", "args": [{"$output": "small"}], "conditions": ALBUMS},
    ],
    "output": "album",
}


async def main() -> None:
    async with colonies.connect() as colony:
        await colony.add_generator("album", ALBUM, trigger=3, timeout_s=5)
        await colony.pack("album", "sea.png", "sun.png")
        await colony.pack("album", "sand.png", "rain.png", "home.png")
        runs: list[RunNow] = []
        while len(runs) < 2 or runs[0].state == "due":
            await asyncio.sleep(0.2)
            runs = await colony.generator_runs("album")
        for run in reversed(runs):
            print(f"album {run.run}:", await colony.workflow(run.workflow).result())
        await colony.remove_generator("album")


if __name__ == "__main__":
    asyncio.run(main())
