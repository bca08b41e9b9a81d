"""Asks whichever worker offers `greet`, and waits for the answer. See hello_worker.py."""

from hello_worker import greet

import colonies

with colonies.connect() as colony:
    process = colony.submit(greet.call("Ada"))
    print(process.result())
