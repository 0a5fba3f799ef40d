"""Wire frames of `esplanade.v1`: two closed unions, one decoder each. docs/protocol.md describes them for other languages.

A frame is a map with the key "op". Subprotocol `esplanade.v1.msgpack` (binary messages) or `esplanade.v1.json` (text messages, bytes as base64).
Requests carry `seq`, counted up by the client; the answer (or Error) carries the same `seq`. A message may hold one frame or an array of at most
MAX_BATCH frames, both ways. Unknown fields are ignored, an unknown `op` is refused by name. Schemas change by addition only.
Byte columns are little-endian: u1, u2, u4, f4 as said; money is integer minor units.
"""

from __future__ import annotations

from gateway.frames.ar import AnchorGraph as AnchorGraph
from gateway.frames.ar import AnchorsAre as AnchorsAre
from gateway.frames.ar import AnchorsChanged as AnchorsChanged
from gateway.frames.ar import AnchorsNear as AnchorsNear
from gateway.frames.ar import CarryAnchors as CarryAnchors
from gateway.frames.ar import GetAnchorGraph as GetAnchorGraph
from gateway.frames.ar import HostAnchor as HostAnchor
from gateway.frames.ar import Localise as Localise
from gateway.frames.ar import Localised as Localised
from gateway.frames.ar import NotLocalised as NotLocalised
from gateway.frames.ar import ObserveAnchor as ObserveAnchor
from gateway.frames.ar import PresenceIs as PresenceIs
from gateway.frames.ar import Present as Present
from gateway.frames.ar import RefineAnchors as RefineAnchors
from gateway.frames.ar import RemoveAnchors as RemoveAnchors
from gateway.frames.ar import ResolveAnchors as ResolveAnchors
from gateway.frames.ar import SceneApplied as SceneApplied
from gateway.frames.ar import SceneApply as SceneApply
from gateway.frames.ar import SceneDelta as SceneDelta
from gateway.frames.ar import SceneEdits as SceneEdits
from gateway.frames.ar import ScenePresence as ScenePresence
from gateway.frames.ar import SceneSync as SceneSync
from gateway.frames.base import MAX_BATCH as MAX_BATCH
from gateway.frames.base import MAX_GUEST_MESSAGE_BYTES as MAX_GUEST_MESSAGE_BYTES
from gateway.frames.base import MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES
from gateway.frames.base import SUBPROTOCOLS as SUBPROTOCOLS
from gateway.frames.base import Coordinate as Coordinate
from gateway.frames.base import Frame as Frame
from gateway.frames.base import Id as Id
from gateway.frames.base import LevelIndex as LevelIndex
from gateway.frames.base import Place as Place
from gateway.frames.base import Policy as Policy
from gateway.frames.base import Seq as Seq
from gateway.frames.base import StaleMs as StaleMs
from gateway.frames.base import Subject as Subject
from gateway.frames.base import Tick as Tick
from gateway.frames.connection import Ack as Ack
from gateway.frames.connection import Bye as Bye
from gateway.frames.connection import Done as Done
from gateway.frames.connection import Error as Error
from gateway.frames.connection import Hello as Hello
from gateway.frames.connection import Limits as Limits
from gateway.frames.connection import Ping as Ping
from gateway.frames.connection import Pong as Pong
from gateway.frames.connection import Renew as Renew
from gateway.frames.connection import Saw as Saw
from gateway.frames.connection import Skipped as Skipped
from gateway.frames.connection import Subscribe as Subscribe
from gateway.frames.connection import Subscribed as Subscribed
from gateway.frames.connection import Unsubscribe as Unsubscribe
from gateway.frames.connection import View as View
from gateway.frames.connection import Welcome as Welcome
from gateway.frames.consent import Consent as Consent
from gateway.frames.consent import GetConsent as GetConsent
from gateway.frames.consent import GiveConsent as GiveConsent
from gateway.frames.consent import WithdrawConsent as WithdrawConsent
from gateway.frames.distances import Distances as Distances
from gateway.frames.distances import GetDistances as GetDistances
from gateway.frames.feed import ClockState as ClockState
from gateway.frames.feed import Closed as Closed
from gateway.frames.feed import CloseSource as CloseSource
from gateway.frames.feed import Columns as Columns
from gateway.frames.feed import GetClock as GetClock
from gateway.frames.feed import OpenSource as OpenSource
from gateway.frames.feed import Rewind as Rewind
from gateway.frames.feed import Taken as Taken
from gateway.frames.feed import Watermark as Watermark
from gateway.frames.money import Balance as Balance
from gateway.frames.money import Books as Books
from gateway.frames.money import Bought as Bought
from gateway.frames.money import Buy as Buy
from gateway.frames.money import GetBalance as GetBalance
from gateway.frames.money import GetBooks as GetBooks
from gateway.frames.money import GetItem as GetItem
from gateway.frames.money import GetStatement as GetStatement
from gateway.frames.money import GetTill as GetTill
from gateway.frames.money import Grant as Grant
from gateway.frames.money import Hold as Hold
from gateway.frames.money import Item as Item
from gateway.frames.money import Paid as Paid
from gateway.frames.money import Pay as Pay
from gateway.frames.money import Payments as Payments
from gateway.frames.money import PaymentStats as PaymentStats
from gateway.frames.money import Post as Post
from gateway.frames.money import PutItem as PutItem
from gateway.frames.money import Refund as Refund
from gateway.frames.money import Settled as Settled
from gateway.frames.money import Statement as Statement
from gateway.frames.money import StatementLine as StatementLine
from gateway.frames.money import StatementPlace as StatementPlace
from gateway.frames.money import Till as Till
from gateway.frames.money import TopUps as TopUps
from gateway.frames.money import Transfer as Transfer
from gateway.frames.money import Void as Void
from gateway.frames.observe import Gnss as Gnss
from gateway.frames.observe import Located as Located
from gateway.frames.observe import Observe as Observe
from gateway.frames.observe import Range as Range
from gateway.frames.people import CreateOffer as CreateOffer
from gateway.frames.people import EndOffer as EndOffer
from gateway.frames.people import Explain as Explain
from gateway.frames.people import Explained as Explained
from gateway.frames.people import GetOffers as GetOffers
from gateway.frames.people import Leave as Leave
from gateway.frames.people import Move as Move
from gateway.frames.people import OfferList as OfferList
from gateway.frames.people import OfferState as OfferState
from gateway.frames.people import Push as Push
from gateway.frames.people import PushColumns as PushColumns
from gateway.frames.people import SetTraits as SetTraits
from gateway.frames.people import WalkedIn as WalkedIn
from gateway.frames.people import WalkIn as WalkIn
from gateway.frames.places import Box as Box
from gateway.frames.places import CompareParking as CompareParking
from gateway.frames.places import CountGates as CountGates
from gateway.frames.places import Density as Density
from gateway.frames.places import Dots as Dots
from gateway.frames.places import DotsView as DotsView
from gateway.frames.places import DrawZone as DrawZone
from gateway.frames.places import Edited as Edited
from gateway.frames.places import EditVenue as EditVenue
from gateway.frames.places import EraseZone as EraseZone
from gateway.frames.places import GetEdits as GetEdits
from gateway.frames.places import GetHeat as GetHeat
from gateway.frames.places import GetZone as GetZone
from gateway.frames.places import GetZones as GetZones
from gateway.frames.places import Heat as Heat
from gateway.frames.places import Measure as Measure
from gateway.frames.places import Measures as Measures
from gateway.frames.places import Parking as Parking
from gateway.frames.places import ParkingCompared as ParkingCompared
from gateway.frames.places import Recount as Recount
from gateway.frames.places import RedoEdit as RedoEdit
from gateway.frames.places import SetBays as SetBays
from gateway.frames.places import Stats as Stats
from gateway.frames.places import UndoEdit as UndoEdit
from gateway.frames.places import Zone as Zone
from gateway.frames.places import ZoneList as ZoneList
from gateway.frames.places import ZoneState as ZoneState
from gateway.frames.presence import GetMembers as GetMembers
from gateway.frames.presence import Member as Member
from gateway.frames.presence import Members as Members
from gateway.frames.presence import MembersChanged as MembersChanged
from gateway.frames.ways import Access as Access
from gateway.frames.ways import FindStores as FindStores
from gateway.frames.ways import GetAccess as GetAccess
from gateway.frames.ways import GetIsochrone as GetIsochrone
from gateway.frames.ways import GetRoute as GetRoute
from gateway.frames.ways import Isochrone as Isochrone
from gateway.frames.ways import NoRoute as NoRoute
from gateway.frames.ways import RideLeg as RideLeg
from gateway.frames.ways import Route as Route
from gateway.frames.ways import Search as Search
from gateway.frames.ways import SetAccess as SetAccess
from gateway.frames.ways import Spot as Spot
from gateway.frames.ways import Stores as Stores
from gateway.frames.ways import WalkLeg as WalkLeg

ClientFrame = (
    Hello | Ping | WalkIn | Move | Leave | Observe | Ack | Pay | GetBalance
    | Transfer | GetStatement | Refund | Hold | Post | Void | GetTill | PutItem | GetItem | Buy | Grant
    | Subscribe | Unsubscribe | Saw | Renew | GetOffers | FindStores | Search | GetRoute | GetIsochrone | GetAccess | SetAccess | DrawZone | EraseZone | GetZones | SetTraits | Explain
    | Measure | GetHeat | CountGates | CompareParking | Recount | EditVenue | UndoEdit | RedoEdit | GetEdits | GetZone | GetClock
    | HostAnchor | ResolveAnchors | AnchorsNear | ObserveAnchor | RemoveAnchors | CarryAnchors | GetAnchorGraph | RefineAnchors | SceneSync | SceneApply | ScenePresence
    | GetMembers | Localise | GetDistances
    | CreateOffer | EndOffer | SetBays | GetBooks | OpenSource | CloseSource | Columns | Watermark | TopUps | Payments
    | GetConsent | GiveConsent | WithdrawConsent
)  # fmt: skip
ServerFrame = (
    Located | Welcome | Pong | Taken | Done | WalkedIn | Stores | Route | NoRoute | Isochrone | Access | Explained | Measures | Heat | ParkingCompared | Edited | ZoneList | OfferList | ZoneState | ClockState | Push | PushColumns | Closed | Rewind | Paid | Settled
    | Balance | Statement | Till | Item | Bought | Books | Subscribed | Dots | DotsView | Density | Zone | Stats | PaymentStats | OfferState | Parking
    | AnchorsAre | AnchorGraph | AnchorsChanged | SceneDelta | SceneApplied | SceneEdits | PresenceIs | Members | MembersChanged | Skipped | Localised | NotLocalised | Distances | Consent | Error | Bye
)  # fmt: skip
