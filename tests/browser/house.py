"""A whole service in this process for the browser to visit: shards, two gateways and the API over memory drivers, and a moving crowd from a real feed client.

The crowd comes in by a gateway of its own, so that the browser's can be stopped while the venue lives on. Runs on an event loop in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actors.local_system import LocalSystem
from actors.localiser import Localiser
from actors.messages import CreateOffer, EndOffer, GetOffers, GetZone, Offers, ZoneState
from actors.shard import Shard
from actors.system import Key
from esplanade.core.clock import RealClock
from esplanade.core.ids import PARTITIONS, Address
from esplanade.storage.blobs import BlobStore
from esplanade.storage.identity import Operator
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore
from esplanade.storage.memory_identity import MemoryIdentity
from esplanade.storage.sealing import Vault
from gateway.answers import Answer, Answers
from gateway.api import ApiServer, ApiSettings, build_api, serve_api
from gateway.auth import Signer, Verifier
from gateway.client import Client
from gateway.credentials import Credentials
from gateway.metrics import GatewayMetrics
from gateway.server import GatewayServer, GatewaySettings
from gateway.sign_in import OperatorDesk
from gateway.token_routes import Doors
from gateway.tokens import TokenDesk
from spatial.columns import PositionColumns
from spatial.offers import Offer
from spatial.venue import Venue
from tests.gateway.identity_stage import CHEAP

TENANT = "demo"
PASSWORD = "correct horse battery staple"
ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "console" / "dist"
FIRST_CROWD_SUBJECT = 1_000_000

T = TypeVar("T")


class Crowd:
    """People who drift between the doors of their level, in straight lines: enough to see that what moves there moves here."""

    def __init__(self, venue: Venue, people: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        doors = [[((o.a[0] + o.b[0]) / 2, (o.a[1] + o.b[1]) / 2) for o in venue.openings if o.level_id == level.id] for level in venue.levels]
        self._doors = {i: np.array(found) for i, found in enumerate(doors) if found}
        self.level: npt.NDArray[np.uint8] = self._rng.choice(np.array(list(self._doors), np.uint8), people)
        self._at = self._pick()
        self._to = self._pick()
        self._speed = self._rng.uniform(0.8, 1.6, people)

    def _pick(self) -> npt.NDArray[np.float64]:
        out = np.empty((len(self.level), 2))
        for level, doors in self._doors.items():
            rows = np.flatnonzero(self.level == level)
            out[rows] = doors[self._rng.integers(len(doors), size=len(rows))] + self._rng.normal(0, 1.5, (len(rows), 2))
        return out

    def step(self, dt_s: float) -> PositionColumns:
        way = self._to - self._at
        distance = np.hypot(way[:, 0], way[:, 1])
        length = np.minimum(distance, self._speed * dt_s)
        self._at += way * (length / np.maximum(distance, 1e-9))[:, None]
        arrived = distance < 0.5
        if arrived.any():
            self._to[arrived] = self._pick()[arrived]
        subject = np.arange(len(self.level), dtype=np.uint32) + np.uint32(FIRST_CROWD_SUBJECT)
        return PositionColumns(subject, self.level, self._at[:, 0].astype(np.float32), self._at[:, 1].astype(np.float32))


class House:
    """Use `with House(...) as house`. `base_url` is the console's address; `run` runs a coroutine on the house's loop and returns its result."""

    def __init__(self, venue: Venue, *, people: int = 300, seed: int = 7) -> None:
        self.venue = venue
        self._people = people
        self._seed = seed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="house", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = 0
        self._port = 0
        self._assets = tempfile.TemporaryDirectory(prefix="house-assets-")
        self.base_url = ""
        self.localiser: Localiser | None = None
        self.answers: Answers | None = None
        """Both of gateways that start from now on."""

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def __enter__(self) -> House:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- what tests do to it ---

    def stop_gateway(self) -> None:
        """The browser's gateway goes away; the venue, its crowd and the API live on."""
        self.run(self._gateway.stop())

    def start_gateway(self) -> None:
        """It comes back at the same address."""
        self._gateway = self._new_gateway("browser")
        self.run(self._gateway.start(port=self._port))

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Meanwhile the browser's gateway asks people for consent."""
        self.stop_gateway()
        self.answers = Answers({TENANT: Answer("asked", 30)})
        self.start_gateway()
        try:
            yield
        finally:
            self.stop_gateway()
            self.answers = None
            self.start_gateway()

    def tick(self) -> int:
        return self.run(self._system.clock(TENANT, self.venue.id)).tick

    def create_offer(self, offer: Offer) -> None:
        self._keys += 1
        address = Address(self.venue.kind, TENANT, self.venue.id)
        self.run(self._system.ask(address, CreateOffer(offer=offer), key=Key("house", self._keys)))

    def end_offers(self) -> None:
        """End all that still run, so that one test's offer is no other test's push."""
        address = Address(self.venue.kind, TENANT, self.venue.id)
        tick = self.tick()
        reply = self.run(self._system.ask(address, GetOffers(tick=tick)))
        assert isinstance(reply, Offers), reply
        for offer in reply.offers:
            self._keys += 1
            self.run(self._system.ask(address, EndOffer(offer_id=offer.id, tick=tick + 1), key=Key("house", self._keys)))

    def inside(self, zone: str) -> int:
        """How many the zone itself says are inside."""
        reply = self.run(self._system.ask(Address("zone", TENANT, f"{self.venue.id}:{zone}"), GetZone()))
        assert isinstance(reply, ZoneState), reply
        return reply.inside

    def people_on(self, level: int) -> npt.NDArray[np.float64]:
        """(n, 2) metres: where an operator's client sees people on a level, in the newest frame after a second."""
        return self.run(self._dots(level))

    async def _dots(self, level: int) -> npt.NDArray[np.float64]:
        url = f"ws://127.0.0.1:{self._back_port}/v1/ws"
        async with await Client.connect(url, client=f"eyes-{level}-{self._keys}", token=self.operator_token(), venue=self.venue.id) as client:
            await client.subscribe(f"venue/{self.venue.id}/dots/{level}", rate_hz=5)
            for _ in range(4):
                frame = await client.event("dots")
        return np.stack([np.frombuffer(frame["x"], "<f4"), np.frombuffer(frame["y"], "<f4")], axis=1).astype(np.float64)

    def top_up(self, subject: int, amount: int, currency: str = "EUR") -> None:
        self._keys += 1
        columns = {"key": self._keys.to_bytes(16, "little"), "subject": np.uint32(subject).tobytes(), "amount": np.uint32(amount).tobytes()}
        settled = self.run(self._feed.top_ups(tick=self.tick(), currency=currency, **columns))
        assert settled["result"] == b"\0", settled

    def put_radio_map(self, body: bytes) -> None:
        """Put a model in force for the venue."""
        self.run(self._catalogue.put_radio_map(TENANT, self.venue.id, body))

    def operator_token(self, role: str = "operator") -> str:
        assert role in ("operator", "engineer", "shopper")
        return self._signer.issue(5, TENANT, role, None, 3600, self._clock.unix_ms() / 1000)  # type: ignore[arg-type]

    # --- how it is built ---

    async def _open(self) -> None:
        clock = self._clock = RealClock()
        store = MemoryStore(clock)
        self._journal, self._catalogue, self._hub = MemoryJournal(store), MemoryCatalogue(clock), MemoryHub(clock)
        await self._catalogue.add_tenant(TENANT, "Demo")
        await self._catalogue.put_venue(TENANT, self.venue.model_dump_json(exclude_defaults=True).encode())
        self._shard = Shard(
            name="s0", owner="house", partitions=range(PARTITIONS), journal=self._journal, catalogue=self._catalogue,
            broker=MemoryBroker(self._hub), clock=clock, secret=b"house-secret-of-tests",
        )  # fmt: skip
        await self._shard.start()
        self._system = LocalSystem([self._shard])
        self._signer = Signer(bytes(range(32)))
        self._gateway = self._new_gateway("browser")
        self._port = await self._gateway.start()
        self._back = self._new_gateway("feed")
        self._back_port = await self._back.start()
        settings = ApiSettings(ws_url=f"ws://127.0.0.1:{self._port}/v1/ws", local_sign_in=True, public_venues=True, console=CONSOLE)
        app = build_api(
            catalogue=self._catalogue, broker=MemoryBroker(self._hub), signer=self._signer, clock=clock, settings=settings, checks={}, doors=await self._doors(clock),
            blobs=BlobStore(Path(self._assets.name)),
        )  # fmt: skip
        self._api: ApiServer = await serve_api(app)
        self.base_url = f"http://127.0.0.1:{self._api.port}"
        token = self._signer.issue(9, TENANT, "feed", "crowd", 3600, clock.unix_ms() / 1000)
        self._feed = await Client.connect(f"ws://127.0.0.1:{self._back_port}/v1/ws", client="crowd-1", token=token, venue=self.venue.id)
        self._tasks.append(asyncio.create_task(self._walk()))

    async def _doors(self, clock: RealClock) -> Doors:
        """Sign-in, with an operator `ann` whose password is PASSWORD."""
        store, vault = MemoryIdentity(), Vault(bytes(range(32)), os.urandom)
        await store.add_operator(Operator(TENANT, "ann", 6, "operator", CHEAP.hash(PASSWORD), clock.unix_ms()))
        credentials = Credentials(Verifier(self._signer.public_key), clock, GatewayMetrics(), store=store, catalogue=self._catalogue, vault=vault)
        tokens = TokenDesk(
            store=store, catalogue=self._catalogue, issuer=self._signer, credentials=credentials, clock=clock, random=os.urandom, audit=None
        )  # fmt: skip
        desk = OperatorDesk(store=store, vault=vault, clock=clock, audit=None, hasher=CHEAP)
        return Doors(store=store, credentials=credentials, tokens=tokens, keys=None, codes=None, operators=desk, clock=clock, random=os.urandom)

    def _new_gateway(self, process: str) -> GatewayServer:
        settings = GatewaySettings(process=process, drain_spread_s=0.0, close_timeout_s=0.5)
        return GatewayServer(
            self._system,
            self._journal,
            MemoryBroker(self._hub),
            self._catalogue,
            Verifier(self._signer.public_key),
            self._signer,
            self._clock,
            settings,
            localiser=self.localiser,
            answers=self.answers,
        )

    async def _walk(self) -> None:
        """Ten frames of columns a second; each tick is declared complete."""
        crowd = Crowd(self.venue, self._people, self._seed)
        state = await self._feed.open_source(self.venue.id, "crowd", 1)
        tick = max(1, int(state["tick"]) + 1)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            columns = crowd.step(0.1)
            await self._feed.columns(self.venue.id, "crowd", tick, columns)
            await self._feed.watermark(self.venue.id, "crowd", tick, len(columns))
            tick += 1
            due = max(due + 0.1, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._feed.close()
        with contextlib.suppress(Exception):  # a test may have stopped it
            await self._gateway.stop()
        await self._back.stop()
        await self._api.stop()
        await self._shard.stop()
        self._assets.cleanup()


@contextlib.contextmanager
def house_of(document: str, *, people: int = 300) -> Iterator[House]:
    """A house around one of our own venues, by the file's name in scenarios/venues."""
    venue = Venue.model_validate_json((ROOT / "scenarios" / "venues" / document).read_bytes())
    with House(venue, people=people) as house:
        yield house
