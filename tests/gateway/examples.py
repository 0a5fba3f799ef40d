"""One example of every frame: golden files, permission and round-trip tests are made from these."""

from __future__ import annotations

import numpy as np

from actors.messages import BayChange, GateCount, Refined, Store
from ar.anchor_records import Anchor, Held, Observed
from ar.scene_ops import CREATE, SET, Dot, Op, encode
from gateway import frames as f
from gateway.frames.distances import End
from spatial.offers import Everyone, Offer, Within
from spatial.venue_edits import CloseUnit, MoveUnit
from spatial.zone_shapes import DrawnZone, Open, Polygon

KEY = bytes(range(16))
SUBJECTS = np.array([3, 7], "<u4").tobytes()
LEVELS = bytes([0, 255])
XS = np.array([1.5, 0.0], "<f4").tobytes()
YS = np.array([-2.25, 0.0], "<f4").tobytes()
AMOUNTS = np.array([250, 1000], "<u4").tobytes()
UNITS = np.array([4, 9], "<u2").tobytes()
PLACE = f.Place(1, 42)
OFFER = Offer(
    id="coffee", unit_id="u-12", title="Two for one", text="Until six", audience=Within(radius_m=15.0), starts_tick=600, ends_tick=36_000, cap=2
)
FLASH = Offer(id="flash", unit_id="u-3", title="Half price", audience=Everyone(), flash=True)
STORE = Store(unit_id="u-12", name="Kaffeehaus", category="cafe", level=1, x_m=10.0, y_m=20.5, distance_m=3.25, offers=("coffee",))

ZONE = DrawnZone(
    id="queue", name="Queue at the bakery", level=1, shape=Polygon(((((0.0, 0.0), (10.0, 0.0), (10.0, 8.0), (0.0, 8.0)),),)), dwell_s=30.0, margin_m=1.5,
    hours=(Open(0.0, 3600.0, 86_400.0),),
)  # fmt: skip
ANCHOR = Anchor(
    id=KEY, level=1, position_m=(12.5, 7.25, 1.5), rotation=(0.0, 0.0, 0.6, 0.8), quality=0.75, tags=("art",), fragment=bytes(range(32)), payload=b"hall"
)  # fmt: skip
POSE = np.array([12.5, 7.25, 1.5, 0.0, 0.0, 0.6, 0.8], "<f4").tobytes()
EDITS = encode(
    [
        Op(Dot("7:phone-1", 1), 1_700_000_000_000 << 16, {}, CREATE, Dot("7:phone-1", 1), order=b"\x80"),
        Op(Dot("7:phone-1", 2), (1_700_000_000_000 << 16) + 1, {}, SET, Dot("7:phone-1", 1), key="colour", value="red"),
    ]
)

CLIENT: tuple[f.ClientFrame, ...] = (
    f.Hello(client="phone-1", guest_of="demo", venue="parkside", resume=PLACE),
    f.Ping(seq=1),
    f.WalkIn(seq=2, venue="parkside", location="north_entrance"),
    f.Move(seq=3, venue="parkside", level=1, x=12.5, y=7.25, ack=True),
    f.Leave(seq=4, venue="parkside"),
    f.Observe(
        seq=34,
        venue="parkside",
        at_ms=81_500,
        wifi=(("9a:40:a9:a1:86:02", -61.0), ("00:11:22:33:44:10", -83.0)),
        ble=(("beacon-7", -70.0),),
        steps=((90.0, 0.7), (92.5, 0.7)),
        gnss=f.Gnss(lat=48.2, lon=16.37, accuracy_m=25.0),
        ranges=(f.Range(x=12.0, y=4.5, range_m=3.2, sd_m=0.2, level=1),),
        location="north_entrance",
    ),
    f.Ack(pushes=("coffee.7.610",)),
    f.Pay(seq=5, venue="parkside", key=KEY, unit="u-12", amount=450, currency="EUR"),
    f.GetBalance(seq=6),
    f.Transfer(seq=22, key=KEY, to=7, amount=300, currency="EUR"),
    f.GetStatement(seq=23, currency="EUR", after=f.StatementPlace(4, 9, 0, 550), limit=2),
    f.Refund(seq=24, key=KEY[::-1], subject=3, original=KEY, amount=450, currency="EUR", venue="parkside"),
    f.Hold(seq=25, venue="parkside", key=KEY, subject=3, unit="u-12", amount=450, currency="EUR", expires_ms=1_700_000_600_000),
    f.Post(seq=26, venue="parkside", key=KEY[::-1], subject=3, hold=KEY, currency="EUR", amount=400),
    f.Void(seq=27, venue="parkside", key=KEY[::-1], subject=3, hold=KEY, currency="EUR"),
    f.GetTill(seq=28, venue="parkside", unit="u-12"),
    f.PutItem(seq=30, item="shoes", amount=4900, currency="EUR", limit=200, venue="parkside", unit="u-12", each=2, closes_ms=1_700_000_600_000),
    f.GetItem(seq=31, item="shoes"),
    f.Buy(seq=32, item="shoes", key=KEY, count=2),
    f.Grant(seq=33, item="welcome", key=KEY, subject=3),
    f.Subscribe(seq=7, topic="venue/parkside/density/1", rate_hz=2.0),
    f.Unsubscribe(seq=8, topic="venue/parkside/density/1"),
    f.Saw(topic="venue/parkside/dots/0", number=17),
    f.Renew(seq=30, token="eyJ..."),
    f.GetOffers(seq=9, venue="parkside"),
    f.FindStores(seq=10, venue="parkside", level=1, x=12.5, y=7.25, k=3),
    f.Search(seq=29, venue="parkside", text="Kafehaus", level=1, x=12.5, y=7.25, k=3),
    f.GetRoute(
        seq=30,
        venue="parkside",
        goal=f.Spot(category="cafe"),
        start=f.Spot(level=1, x=12.5, y=7.25),
        profile="pram",
        ways={"stairs_up": "forbid"},
    ),
    f.GetIsochrone(seq=31, venue="parkside", within_s=120.0, start=f.Spot(place="north_entrance")),
    f.GetAccess(seq=32, venue="parkside"),
    f.SetAccess(seq=33, venue="parkside", close=("lift-north",), open=("u-12",)),
    f.DrawZone(seq=34, venue="parkside", zone=ZONE),
    f.EraseZone(seq=35, venue="parkside", zone="queue"),
    f.GetZones(seq=36, venue="parkside", box=f.Box(1, 0.0, 0.0, 60.0, 40.0)),
    f.SetTraits(seq=37, venue="parkside", subject=SUBJECTS, segments=np.array([3, 4], "<u8").tobytes(), language="de"),
    f.Explain(seq=38, venue="parkside", offer="coffee", subject=7),
    f.Measure(seq=39, venue="parkside", zone="queue", voronoi=True),
    f.GetHeat(seq=40, venue="parkside", level=1),
    f.CountGates(seq=41, venue="parkside", counts=(GateCount("north", 12, 240, 180),)),
    f.CompareParking(seq=42, venue="parkside", moving_at_most=5),
    f.Recount(seq=43, venue="parkside", moving=2),
    f.EditVenue(seq=44, venue="parkside", edit=CloseUnit(unit_id="u-12")),
    f.UndoEdit(seq=45, venue="parkside"),
    f.RedoEdit(seq=46, venue="parkside"),
    f.GetEdits(seq=47, venue="parkside"),
    f.GetZone(seq=11, venue="parkside", zone="u-12"),
    f.GetClock(seq=12, venue="parkside"),
    f.HostAnchor(seq=30, venue="parkside", anchor=ANCHOR),
    f.ResolveAnchors(seq=31, venue="parkside", ids=KEY + KEY[::-1]),
    f.AnchorsNear(seq=32, venue="parkside", level=1, x=12.5, y=7.25, k=5, tags=("art",)),
    f.ObserveAnchor(seq=33, venue="parkside", seen=Observed(id=KEY, position_m=(0.5, 0.0, 0.0), sigma_m=0.02, seen_from=KEY[::-1])),
    f.RemoveAnchors(seq=34, venue="parkside", ids=KEY),
    f.CarryAnchors(seq=35, venue="parkside", carrier="float-1", level=0, position_m=(4.0, 5.0, 0.0)),
    f.GetAnchorGraph(seq=39, venue="parkside"),
    f.RefineAnchors(seq=40, venue="parkside", refined=(Refined(KEY, 2, (12.52, 7.25, 1.5), (0.0, 0.0, 0.6, 0.8)),)),
    f.SceneSync(seq=36, venue="parkside", scene="hall", seen={"7:phone-1": 2}),
    f.SceneApply(seq=37, venue="parkside", scene="hall", ops=EDITS),
    f.ScenePresence(seq=38, venue="parkside", scene="hall", level=1, pose=POSE),
    f.GetMembers(seq=48, topic="venue/parkside/scene/hall", watch=True),
    f.Localise(seq=40, venue="parkside", level=1, points=b"\x0a\x00\x14\x00\xe8\x03", near=(12.5, 7.25, 1.5), within_m=0.5),
    f.GetDistances(
        seq=49, venue="parkside", sources=(End("north_entrance"), End(level=1, x=12.5, y=7.25)), targets=(End("u-12"),), profile="wheelchair"
    ),
    f.CreateOffer(seq=13, venue="parkside", offer=OFFER),
    f.EndOffer(seq=14, venue="parkside", offer="coffee", tick=700),
    f.SetBays(seq=15, venue="parkside", bays=(BayChange(unit_id="bay-1", occupied=True),)),
    f.GetBooks(seq=16),
    f.OpenSource(seq=17, venue="parkside", source="crowd", first_tick=1),
    f.CloseSource(seq=18, venue="parkside", source="crowd"),
    f.Columns(seq=19, venue="parkside", source="crowd", tick=1, subject=SUBJECTS, level=LEVELS, x=XS, y=YS),
    f.Watermark(venue="parkside", source="crowd", tick=1, rows=2),
    f.TopUps(seq=20, tick=1, key=KEY + KEY[::-1], subject=SUBJECTS, amount=AMOUNTS, currency="EUR"),
    f.Payments(seq=21, venue="parkside", tick=1, key=KEY + KEY[::-1], subject=SUBJECTS, unit=UNITS, amount=AMOUNTS, currency="EUR"),
    f.GetConsent(seq=60),
    f.GiveConsent(seq=61, text="2026-11"),
    f.WithdrawConsent(seq=62),
)

SERVER: tuple[f.ServerFrame, ...] = (
    f.Located(
        seq=34, venue="parkside", at_ms=81_500, state="located", level=1, x=12.5, y=7.25, cov=(1.5, -0.25, 2.0), radius_m=3.1, levels=(0.02, 0.98), flags=("fast",), map=3
    ),
    f.Welcome(
        session="gateway-1", subject=2**30, tenant="demo", role="guest", now_ms=1_700_000_000_000, heartbeat_s=30.0,
        limits=f.Limits(16_384, 20.0, 8), resumed=True, token="eyJ...",
    ),
    f.Pong(seq=1, now_ms=1_700_000_000_000),
    f.Taken(seq=3),
    f.Done(seq=13),
    f.WalkedIn(seq=2, venue="parkside", venue_name="Parkside", level=0, x=1.0, y=2.0, stores=(STORE,)),
    f.Stores(seq=10, stores=(STORE,)),
    f.Route(
        seq=30, metres=41.5, seconds=91.0, goal="u-12",
        legs=(f.WalkLeg(1, XS, YS, 41.5, 31.0), f.RideLeg("lift-north", "elevator", 1, 2, 40.0, 60.0)),
        words=("Start on Level 1 and head for the lift.", "Take the lift up to Level 2.", "Kaffeehaus is on your left."),
    ),
    f.NoRoute(seq=30, reason="closed", message="every way between north_entrance and u-12 is closed at the moment"),
    f.Isochrone(seq=31, cell_m=4.0, level=bytes([0, 1]), x=XS, y=YS, seconds=XS, places={"u-12": 31.5}),
    f.Access(seq=32, venue="parkside", closed=("lift-north",)),
    f.Explained(
        seq=38, offer="coffee", subject=7, outcome="too_far", message="coffee to 7: not pushed: u-12 is 95 s away, more than 60 s", pushes=0,
    ),
    f.Measures(
        seq=39, zone="queue", tick=610, inside=40, ground_m2=80.0, density_per_m2=0.5, service="C", waiting="A", mean_stay_s=41.5, voronoi_per_m2=0.62,
        entries_per_min=12.0, exits_per_min=9.0, stays_s=(0, 10, 30), stays=(4, 9, 2),
    ),
    f.Heat(
        seq=40, venue="parkside", level=1, tick=610, x0_m=-10.0, y0_m=0.0, cell_m=4.0, cols=2, rows=1, person_s=XS, since_tick=10,
    ),
    f.ParkingCompared(seq=42, venue="parkside", total=200, taken=57, inside=60, drift=3),
    f.Edited(
        seq=44, venue="parkside", digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", edit=CloseUnit(unit_id="u-12"),
        done=(MoveUnit(unit_id="u-3", dx_m=1.5, dy_m=0.0), CloseUnit(unit_id="u-12")), undone=0,
    ),
    f.ZoneList(seq=36, zones=(ZONE,)),
    f.OfferList(seq=9, offers=(OFFER, FLASH)),
    f.ZoneState(seq=11, tick=610, inside=4, entries=9, exits=5, dwells=2, stayed_s=730.5),
    f.ClockState(seq=12, tick=610, epoch=2, driven=True, late_rows=0, late_ticks=0),
    f.Push(id="coffee.7.610", kind="NEARBY", venue="parkside", offer="coffee", unit="u-12", title="Two for one", text="Until six", tick=610, place=PLACE),
    f.PushColumns(
        venue="parkside", tick=610, offers=("coffee", "flash"), offer=np.array([0, 1], "<u2").tobytes(), subject=SUBJECTS, place=PLACE
    ),
    f.Closed(venue="parkside", tick=610, epoch=2, late_rows=0),
    f.Rewind(venue="parkside", tick=609, epoch=3),
    f.Paid(seq=5, key=KEY, balance=550),
    f.Settled(seq=20, result=bytes([0, 1]), codes=("wallet_not_found",)),
    f.Balance(seq=6, balances={"EUR": 550}),
    f.Statement(
        seq=23, subject=3, currency="EUR", opening=1000, closing=550, lines=(f.StatementLine("payment", KEY, -450, 550, "till", 12),),
        next=f.StatementPlace(4, 9, 0, 550),
    ),
    f.Till(seq=28, venue="parkside", unit="u-12", balances={"EUR": 450}),
    f.Item(
        seq=31, item="shoes", amount=4900, currency="EUR", limit=200, left=12, under_way=3, each=2, closes_ms=1_700_000_600_000, venue="parkside", unit=12
    ),
    f.Bought(seq=32, item="shoes", key=KEY, count=2, balance=200),
    f.Books(
        seq=16, accounts=3, total={"EUR": 0}, wallets={"EUR": 550}, tills={"EUR": 450}, outside={"EUR": -1000}, payments=1, top_ups=1,
    ),
    f.Subscribed(seq=7, topic="venue/parkside/density/1"),
    f.Dots(venue="parkside", level=0, tick=610, pseudonym=SUBJECTS, x=XS, y=YS, radius=bytes([31, 0])),
    f.DotsView(
        venue="parkside", level=0, tick=610, number=17, x0_m=0.0, y0_m=-512.0, step_m=0.05, pseudonym=SUBJECTS,
        x=np.array([30, 1240], "<u2").tobytes(), y=np.array([10_195, 10_240], "<u2").tobytes(), left=np.array([9], "<u4").tobytes(), whole=True,
        cluster_m=8.0, cluster_x=np.array([80], "<u2").tobytes(), cluster_y=np.array([10_320], "<u2").tobytes(),
        cluster_count=np.array([12], "<u2").tobytes(), radius=bytes([31, 0]),
    ),
    f.Density(
        venue="parkside", level=1, tick=610, x0_m=-10.0, y0_m=0.0, cell_m=5.0, cols=2, rows=2, count=np.array([0, 3, 12, 0], "<u2").tobytes()
    ),
    f.Zone(
        venue="parkside", zone="queue", tick=610, inside=40, entries=90, exits=50, dwells=12, crossed=3, stayed_s=730.5, density_per_m2=0.5, service="C",
    ),
    f.Stats(
        venue="parkside", tick=610, inside=(120, 80), pushes=15, entries=200, exits=0, dwells=40, tick_ms=3.5, zones={"u-12": 4},
    ),
    f.PaymentStats(payments=12, refused=1, volume={"EUR": 5400}),
    f.OfferState(venue="parkside", offer=FLASH, ended=True),
    f.Parking(venue="parkside", total=200, free=37),
    f.AnchorsAre(seq=32, anchors=(Held(ANCHOR, 7, 2, 0.875, agreed=2, distance_m=3.25),)),
    f.AnchorGraph(seq=39, anchors=(Held(ANCHOR, 7, 2, 0.875, agreed=2),), seen=(Observed(id=KEY, position_m=(12.52, 7.25, 1.5)),)),
    f.AnchorsChanged(venue="parkside", what="hosted", ids=KEY),
    f.SceneDelta(seq=36, ops=EDITS, whole=True),
    f.SceneApplied(seq=37, applied=2, known=0),
    f.SceneEdits(venue="parkside", scene="hall", author="7:phone-1", ops=EDITS),
    f.PresenceIs(venue="parkside", scene="hall", present=(f.Present("7:phone-1", 1, POSE),)),
    f.Members(seq=48, topic="venue/parkside/scene/hall", count=2, members=(f.Member("7:phone-1", "shopper"), f.Member("9:desk", "operator")), whole=True),
    f.MembersChanged(topic="venue/parkside/scene/hall", count=2, joined=(f.Member("7:phone-1", "shopper"),), left=(f.Member("8:phone-2", "shopper"),), whole=True),
    f.Skipped(topic="venue/parkside/offers", count=3),
    f.Localised(
        seq=40, venue="parkside", level=1, position_m=(12.5, 7.25, 1.5), rotation=(0.0, 0.0, 0.6, 0.8), covariance=bytes(144), chance=0.97, map="ab" * 32,
        geopose={"position": {"lat": 52.52, "lon": 13.4, "h": 1.5}, "quaternion": {"x": 0.0, "y": 0.0, "z": 0.6, "w": 0.8}},
    ),
    f.NotLocalised(seq=40, venue="parkside", level=1, reason="too few features of the query answer to the map", chance=0.0, map="ab" * 32),
    f.Distances(seq=49, sources=2, targets=1, cost=XS),
    f.Consent(seq=61, asked=True, given=True, text="2026-11"),
    f.Error(code="invalid", message="level 9: venue parkside has levels 0 to 2", seq=3),
    f.Bye(code="unavailable", message="this gateway is going away: reconnect", reconnect=True, retry_after_s=1.5),
)  # fmt: skip
