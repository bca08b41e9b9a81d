"""Start it with `colonies worker start hello_worker:worker --name greeter` in this folder."""

import colonies

worker = colonies.Worker("python")


@worker.function
def greet(name: str) -> str:
    """A friendly word for somebody."""
    return f"Hello, {name}!"
