"""A worker written from docs/protocol.md alone: python tiny_worker.py URL CREDS. It runs `python` processes
that have no other conditions, one at a time, and leaves backoffs and paused queues to other readers."""

import asyncio
import base64
import hashlib
import json
import os
import re
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace as Bag

import msgpack
import nats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nats.js.errors import APIError, NotFoundError

PYTHON, S, NEVER, DIGITS = {"runtimetype": "python"}, 10**9, 2**63, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID, ARGS, ADDS = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}"), {"args", "kwargs"}, {"adds", "between"}
EXPECTED, PULL = "Nats-Expected-Last-Subject-Sequence", "$JS.API.CONSUMER.MSG.NEXT.LEDGER."
SPEC = re.compile("func|conditions|args|kwargs|name|label|priority|max(wait|exec)time|maxretries|env|colony")
# What happens to a process: who says it, in which states, what follows.
RULES = """assigned worker waiting,running running;renewed worker running running
returned worker running waiting;completed worker running done;failed worker running failed
requeued service waiting,running,failed waiting;poisoned worker,service running done
expired worker,service waiting done;cancelled owner,user waiting,running,failed done"""
RULES = {name: rule for name, *rule in map(str.split, re.split("[;\n]", RULES))}


def must(*facts):
    assert all(facts)


def digest32(data, length):
    return base64.b32encode(hashlib.sha256(data).digest()[:length]).decode().rstrip("=").lower()


def queue_of(priority):
    return digest32(msgpack.packb([PYTHON, priority]), 16)


def check_signature(key, said, signature):
    Ed25519PublicKey.from_public_bytes(base64.b32decode(key)[1:33]).verify(signature, said)


def unpack(data):
    return msgpack.unpackb(data, object_pairs_hook=lambda p: must(len(dict(p)) == len(p)) or dict(p))


class Ledger:
    """Who is a member, and what became of each process. `judge` says whether a message is valid."""

    def __init__(self, colony):
        self.colony, self.name, self.leases = colony, "", []
        self.members, self.heads, self.processes, self.keys, self.paused = {}, {}, {}, set(), set()

    def judge(self, seq, at, subject, data):
        try:
            (payload, signature), parts = unpack(data), subject.split(".")
            e = Bag(**unpack(payload), seq=seq, at=at, entity="" if parts[1] == "colony" else parts[2])
            kind, e.name = e.type.split(".")
            said = f"queued.{parts[4]}" if e.name in ("queued", "requeued") else e.name
            must(subject == ".".join(filter(None, ["ledger", kind, e.entity, said, e.author])))
            must(len(vars(e)) == 11, e.v == 1, ULID.fullmatch(e.id))
            signed = f"colonies/1:{self.colony}:{subject}\n".encode() + payload
            e.queue, e.digest = said.partition(".")[2], hashlib.sha256(signed).digest()
            held = [k for k in self.members.get(e.author, []) if k.since < seq <= k.until and at < k.end]
            key = held[-1] if e.type != "colony.genesis" else Bag(key=self.colony, role="owner")
            check_signature(key.key, signed, signature)
            told = self.submission if e.name == "queued" else self.process
            {"process": told, "colony": self.trust, "member": self.trust}[kind](e, key.role, e.data)
        except Exception:
            return False
        return True

    def trust(self, e, role, d):
        held, key = self.members.get(e.entity, [Bag(until=0, end=NEVER, role="owner")])[-1], d.get("key")
        must(role == "owner", e.prev == self.heads.get(e.entity), key not in self.keys)
        must((e.name == "genesis") != bool(self.name), d.get("owner", e.author) == e.author)
        if e.name in ("paused", "drained", "resumed"):  # of the colony, or of a worker
            must((e.name == "resumed") == (e.entity in self.paused), not e.entity or held.role == "worker")
            self.paused, held = self.paused ^ {e.entity}, Bag(until=NEVER)
        must(held.until == NEVER if e.name[0] == "r" else e.name[0] != "a" or e.entity not in self.members)
        if e.name == "rotated":
            said = b"\xff" + f"colonies/1:{self.colony}:consent:{e.entity}:{held.key}:{key}\n".encode()
            check_signature(key, said, d["consent"])
            check_signature(held.key, said, d["former_consent"])
        self.name, self.heads[e.entity], held.until = d.get("name", self.name), e.digest, e.seq
        self.leases += [d["lease_s"]] if "lease_s" in d else []
        if key := key or d.get("owner_key"):
            end, role = d.get("expires_unix_s"), d.get("role", held.role)
            fresh = Bag(key=key, role=role, since=e.seq, until=NEVER, end=end * S if end else held.end)
            self.members.setdefault(e.entity or e.author, []).append(fresh)
            self.keys.add(key)

    def process(self, e, role, d):
        p, (roles, states, state) = self.processes[e.entity], RULES[e.name]
        e.at = max(e.at, p.at)
        must(role in roles.split(","), p.state in states.split(","), e.prev == p.head)
        must("attempt" not in d or (e.author, d["attempt"]) == (p.author, p.attempts[-1]))
        must(e.name != "cancelled" or role == "owner" or e.author == p.submitter, not d.keys() & ADDS)
        must(e.name != "requeued" or (d["cites"], e.queue) == (p.seq, p.queue))
        if e.name == "assigned":
            must(d["offer"] == p.offer, d["lease_s"] <= max(self.leases), e.id not in p.attempts)
            must(p.state == "waiting" or e.at >= p.signed + int(p.lease_s * S))
            vars(p).update(d, author=e.author, attempts=[*p.attempts, e.id])
        p.offer = e.id if e.name == "requeued" else p.offer
        state = "done" if d.get("kind") == "final" else state
        lost = p.state == "running" and e.name in ("assigned", "requeued")
        p.lost = p.lost + lost if "attempt" not in d or e.name == "renewed" else 0
        vars(p).update(state=state, head=e.digest, seq=e.seq, at=e.at, signed=e.at)

    def submission(self, e, role, d):
        own, spec, stored = d.get("key"), d["spec"], d.get("arguments")
        derived = own is not None and digest32(f"key\0{e.author}\0{own}".encode(), 20)
        must(e.entity == derived or (own is None and ULID.fullmatch(e.entity)), role in ("owner", "user"))
        must(e.prev is None, e.entity not in self.processes, spec["func"], *map(SPEC.fullmatch, spec))
        must(spec["conditions"] == PYTHON, spec.get("colony") in (None, self.name, self.colony))
        must(e.queue == queue_of(spec.get("priority", 0)), not stored or not spec.keys() & ARGS)
        p = self.processes[e.entity] = Bag(spec=spec, queue=e.queue, submitter=e.author, stored=stored)
        vars(p).update(state="waiting", offer=e.id, head=e.digest, seq=e.seq, at=e.at, signed=e.at)
        vars(p).update(attempts=[], instance="", lease_s=0, lost=0)


async def run(func, n, args, kwargs):
    if func == "wait_for":  # says that it runs, then runs until a file appears
        Path(args[0], f"{args[1]}.{n}.running").write_text(str(os.getpid()))
        while not Path(args[0], args[1]).exists():
            await asyncio.sleep(0.02)
        return n
    known = {"double": lambda number: 2 * number, "echo": lambda *said, **named: [said, named]}
    return known[func](*args, **kwargs)


class Worker:
    def __init__(self, creds):
        self.jwt, seed = (re.search(rf"{kind}-+\s+(\S+)", creds)[1] for kind in ("JWT", "SEED"))
        self.claims = json.loads(base64.urlsafe_b64decode(self.jwt.split(".")[1] + "=="))
        self.name, self.instance = self.claims["name"], os.urandom(4).hex()
        self.sign = Ed25519PrivateKey.from_private_bytes(base64.b32decode(seed + "======")[2:34]).sign
        self.colony = self.claims["nats"]["issuer_account"]

    async def read(self, pattern):
        found = []
        with suppress(NotFoundError):
            while m := await self.js.get_msg("LEDGER", (found or [(0,)])[-1][0] + 1, pattern, next=True):
                found.append((m.seq, round(m.time.timestamp() * 1e6) * 1000, m.subject, m.data or b""))
        return found

    async def story(self, process):
        """The process as the ledger has it (None: there is none), and the last sequence under its guard."""
        told, self.ledger = await self.read(f"ledger.process.{process}.>"), Ledger(self.colony)
        for message in sorted(await self.read("ledger.colony.>") + await self.read("ledger.member.>") + told):
            self.ledger.judge(*message)
        return self.ledger.processes.get(process), told[-1][0] if told else 0

    def sealed(self, subject, type, prev, data):
        stamp = time.time_ns() // 10**6 << 80 | int.from_bytes(os.urandom(10), "big")
        e = {"v": 1, "id": "".join(DIGITS[stamp >> 5 * i & 31] for i in range(25, -1, -1)), "type": type}
        e |= {"time": time.time_ns(), "author": self.name, "prev": prev, "data": data}
        signed = f"colonies/1:{self.colony}:{subject}\n".encode() + (payload := msgpack.packb(e))
        return msgpack.packb([payload, self.sign(signed)])

    async def say(self, process, name, told, **data):
        subject = f"ledger.process.{process}.{name}.{self.name}"
        guard = {EXPECTED: str(told[1]), f"{EXPECTED}-Subject": f"ledger.process.{process}.>"}
        with suppress(APIError, TimeoutError):  # the ledger says what became of it
            sealed = self.sealed(subject, f"process.{name}", told[0].head, data)
            await self.js.publish(subject, sealed, headers=guard)
        return await self.story(process)

    async def take(self, msg):
        process, offer = msg.subject.split(".")[2], unpack(unpack(msg.data)[0])["id"]
        p, _ = told = await self.story(process)
        if p is None or p.state not in ("waiting", "running") or p.offer != offer:
            return msg.ack()
        info = json.loads((await self.nc.request("$JS.API.STREAM.INFO.LEDGER", b"", timeout=5)).data)
        since_s = datetime.fromisoformat(info["ts"]).timestamp() - p.signed / S
        silent = since_s > min(10 * p.lease_s, 300) + 2 * p.lease_s  # it reads no heartbeats
        running, closed = p.state == "running", self.ledger.paused & {"", self.name}
        if p.stored or closed or p.lost + running >= 5 or (running and not silent):
            return msg.nak(p.lease_s or 5)
        mine = {"offer": offer, "lease_s": self.ledger.leases[-1], "instance": self.instance}
        p, _ = told = await self.say(process, "assigned", told, **mine)
        if p.state == "running" and p.instance == self.instance:
            await self.hold(process, p.attempts[-1], told, msg)
            return msg.ack()
        return msg.nak(1)

    async def hold(self, process, attempt, told, msg):
        p, spec, held = told[0], told[0].spec, lambda p: p.state == "running" and p.attempts[-1] == attempt
        beat, renewed = f"heartbeat.{self.name}.{self.instance}", time.monotonic()
        about = {"instance": self.instance, "concurrency": 1, "attempts": {process: [attempt]}} | PYTHON
        call = run(spec["func"], len(p.attempts), spec.get("args", []), spec.get("kwargs", {}))
        work = asyncio.create_task(asyncio.wait_for(call, max(spec.get("maxexectime") or 0, 0) or None))
        while not work.done() and held(told[0]):
            await msg.in_progress()
            await self.nc.publish(beat, self.sealed(beat, "heartbeat", None, about))
            if time.monotonic() - renewed > min(10 * p.lease_s, 300):
                told, renewed = await self.say(process, "renewed", told, attempt=attempt), time.monotonic()
            await asyncio.wait([work], timeout=p.lease_s / 3)
            told = await self.story(process)
        work.cancel()
        await asyncio.wait([work])
        while held(told[0]):
            error = work.exception()
            said = {"error": repr(error)[:9999], "delay_s": 1} if error else {"output": work.result()}
            told = await self.say(process, "failed" if error else "completed", told, attempt=attempt, **said)


async def main(url, creds):
    w = Worker(Path(creds).read_text())
    login = {"user_jwt_cb": lambda: bytearray(w.jwt, "ascii"), "inbox_prefix": f"_INBOX_{w.claims['sub']}"}
    login["signature_cb"] = lambda nonce: base64.b64encode(w.sign(nonce.encode()))
    w.nc = await nats.connect(url, max_reconnect_attempts=-1, **login)
    w.js, offers = w.nc.jetstream(), await w.nc.subscribe(inbox := w.nc.new_inbox())
    print("ready", w.instance, flush=True)
    while True:
        for priority in range(9, -10, -1):  # the urgent first; where nobody declared a queue is no consumer
            await w.nc.publish(PULL + queue_of(priority), b'{"batch": 1, "no_wait": true}', inbox)
            if (msg := await offers.next_msg(30)).reply:
                await (await w.take(msg))
                break
        else:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
