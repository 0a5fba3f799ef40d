/**
 * Wire frames of `esplanade.v1`, typed by hand from gateway/frames/; tests/gateway/golden, written by the server's own encoder, checks that they agree.
 * Byte columns are little-endian: u1, u2, u4, f4 as said. Money is integer minor units. Schemas change by addition only: unknown fields are ignored.
 */
import type { ArRequests, ArServerFrame } from "./ar_frames";
import type { SpaceRequests, SpaceServerFrame } from "./space_frames";

export const SUBPROTOCOL = "esplanade.v1.msgpack";
export const MAX_BATCH = 256;
/** Seconds of venue time in a tick. */
export const TICK_S = 0.1;

/** A rectangle of a level, metres. */
export type View = { x0: number; y0: number; x1: number; y1: number };
/** A position in a durable topic: resume after it. */
export type Place = { epoch: number; offset: number };

export type Audience = { type: "within"; radius_m: number } | { type: "inside" } | { type: "everyone" };

export type Offer = {
  id: string;
  unit_id: string;
  title: string;
  text: string;
  audience: Audience;
  starts_tick: number;
  ends_tick: number;
  cooldown_ticks: number;
  cap: number;
  flash: boolean;
};

export type Store = {
  unit_id: string;
  name: string;
  category: string;
  level: number;
  x_m: number;
  y_m: number;
  distance_m: number;
  offers: string[];
};

/** One question about a field of a topic's frames; exactly one of `equals`, `in`, or a range. */
export type Scalar = string | number | boolean | null;
export type Test = { field: string; equals?: Scalar; in?: Scalar[]; at_least?: number; below?: number; not?: boolean };
/** What becomes of publications of a durable topic that a slow reader cannot take. */
export type Policy = "disconnect" | "keep_latest" | "drop_oldest";
export type Member = { client: string; role: string };

// --- client to server

export type Hello = { op: "hello"; client: string; token?: string; guest_of?: string; venue?: string; resume?: Place };
export type Ack = { op: "ack"; pushes: string[] };

/** What a phone sensed: [address, dBm], [heading in degrees, metres]. */
export type Observed = {
  venue: string;
  at_ms: number;
  wifi?: [string, number][];
  ble?: [string, number][];
  steps?: [number, number][];
  gnss?: { lat: number; lon: number; accuracy_m: number };
  ranges?: { x: number; y: number; range_m: number; sd_m: number; level?: number }[];
  location?: string;
};

/** Requests as the views write them; the wire adds `seq`. The answer's type follows from `op`. */
export type Requests = ArRequests &
  SpaceRequests & {
    ping: [Record<never, never>, Pong];
    walk_in: [{ venue: string; location: string }, WalkedIn];
    move: [{ venue: string; level: number; x: number; y: number; ack?: boolean }, Taken];
    leave: [{ venue: string }, Taken | Done];
    observe: [Observed, Located];
    get_consent: [Record<never, never>, Consent];
    give_consent: [{ text: string }, Consent];
    withdraw_consent: [Record<never, never>, Consent];
    pay: [{ venue: string; key: Uint8Array; unit: string; amount: number; currency: string }, Paid];
    balance: [{ stale_ms?: number }, BalanceIs];
    transfer: [{ key: Uint8Array; to: number; amount: number; currency: string }, Paid];
    statement: [{ currency: string; subject?: number; after?: StatementPlace; limit?: number }, StatementIs];
    refund: [{ key: Uint8Array; subject: number; original: Uint8Array; amount: number; currency: string; venue?: string }, Paid];
    hold: [{ venue: string; key: Uint8Array; subject: number; unit: string; amount: number; currency: string; expires_ms: number }, Paid];
    post: [{ venue: string; key: Uint8Array; subject: number; hold: Uint8Array; currency: string; amount?: number }, Paid];
    void: [{ venue: string; key: Uint8Array; subject: number; hold: Uint8Array; currency: string }, Paid];
    get_till: [{ venue: string; unit: string }, TillIs];
    put_item: [
      { item: string; amount: number; currency: string; limit: number; venue?: string; unit?: string; each?: number; closes_ms?: number },
      Done,
    ];
    get_item: [{ item: string }, ItemIs];
    buy: [{ item: string; key: Uint8Array; count?: number }, Bought];
    grant: [{ item: string; key: Uint8Array; subject: number }, Bought];
    subscribe: [{ topic: string; rate_hz?: number; view?: View; bytes_per_s?: number; resume?: Place; where?: Test[]; policy?: Policy }, Subscribed];
    get_members: [{ topic: string; watch?: boolean }, Members];
    unsubscribe: [{ topic: string }, Done];
    get_offers: [{ venue: string; stale_ms?: number }, OfferList];
    find_stores: [{ venue: string; level: number; x: number; y: number; k?: number }, Stores];
    search: [{ venue: string; text: string; level?: number; x?: number; y?: number; k?: number }, Stores];
    get_zone: [{ venue: string; zone: string; stale_ms?: number }, ZoneState];
    get_clock: [{ venue: string }, ClockState];
    create_offer: [{ venue: string; offer: Offer }, Done];
    end_offer: [{ venue: string; offer: string; tick: number }, Done];
    get_books: [{ stale_ms?: number }, Books];
  };
export type RequestOp = keyof Requests;
export type RequestBody<Op extends RequestOp> = Requests[Op][0];
export type Answer<Op extends RequestOp> = Requests[Op][1];

// --- server to client

export type Welcome = {
  op: "welcome";
  session: string;
  subject: number;
  tenant: string;
  role: string;
  now_ms: number;
  heartbeat_s: number;
  limits: { message_bytes: number; frames_per_s: number; subscriptions: number };
  resumed?: boolean;
  token?: string;
  expires_ms?: number;
  /** Of people of a tenant that asks them: whether they have agreed that it is known where they are. */
  consent?: "given" | "needed";
};
export type Consent = { op: "consent"; seq: number; asked: boolean; given: boolean; text?: string };
export type Pong = { op: "pong"; seq: number; now_ms: number };
export type Located = {
  op: "located";
  seq: number;
  venue: string;
  at_ms: number;
  state: "located" | "settling" | "silent" | "outside" | "late" | "repeated";
  level?: number;
  x?: number;
  y?: number;
  cov?: [number, number, number];
  radius_m?: number;
  levels?: number[];
  flags?: ("fast" | "level")[];
  map?: number;
  message?: string;
};
export type Taken = { op: "taken"; seq: number };
export type Done = { op: "done"; seq: number };
export type WalkedIn = { op: "walked_in"; seq: number; venue: string; venue_name: string; level: number; x: number; y: number; stores: Store[] };
export type Stores = { op: "stores"; seq: number; stores: Store[] };
export type OfferList = { op: "offer_list"; seq: number; offers: Offer[] };
export type ZoneState = {
  op: "zone_state";
  seq: number;
  tick: number;
  inside: number;
  entries: number;
  exits: number;
  dwells: number;
  stayed_s: number;
};
export type ClockState = { op: "clock_state"; seq: number; tick: number; epoch: number; driven: boolean; late_rows: number; late_ticks: number };
export type Push = {
  op: "push";
  id: string;
  kind: "NEW_OFFER" | "NEARBY";
  venue: string;
  offer: string;
  unit: string;
  title: string;
  text: string;
  tick: number;
  place: Place;
};
export type Closed = { op: "closed"; venue: string; tick: number; epoch: number; late_rows: number };
export type Rewind = { op: "rewind"; venue: string; tick: number; epoch: number };
export type Paid = { op: "paid"; seq: number; key: Uint8Array; balance: number };
export type BalanceIs = { op: "balance_is"; seq: number; balances: Record<string, number>; held?: Record<string, number> };
/** Where a page of a statement ended: pass it back as it came. */
export type StatementPlace = { position: number; version: number; row: number; balance: number };
export type StatementLine = {
  what: "payment" | "top_up" | "move" | "post" | "refund" | "send" | "receive" | "came_back";
  key: Uint8Array;
  amount: number;
  balance: number;
  other: "wallet" | "till" | "outside" | "transit";
  number: number;
};
export type StatementIs = {
  op: "statement_is";
  seq: number;
  subject: number;
  currency: string;
  opening: number;
  closing: number;
  lines: StatementLine[];
  next?: StatementPlace;
};
export type ItemIs = {
  op: "item_is";
  seq: number;
  item: string;
  amount: number;
  currency: string;
  limit: number;
  left: number;
  under_way: number;
  each: number;
  closes_ms: number;
  venue?: string;
  unit?: number;
};
export type Bought = { op: "bought"; seq: number; item: string; key: Uint8Array; count: number; balance: number };
export type TillIs = { op: "till_is"; seq: number; venue: string; unit: string; balances: Record<string, number> };
export type Books = {
  op: "books";
  seq: number;
  accounts: number;
  total: Record<string, number>;
  wallets: Record<string, number>;
  tills: Record<string, number>;
  outside: Record<string, number>;
  payments: number;
  top_ups: number;
};
export type Subscribed = { op: "subscribed"; seq: number; topic: string; place?: Place; resumed?: boolean };
export type DotsViewFrame = {
  op: "dots_view";
  venue: string;
  level: number;
  tick: number;
  number: number;
  x0_m: number;
  y0_m: number;
  step_m: number;
  pseudonym: Uint8Array;
  x: Uint8Array;
  y: Uint8Array;
  left?: Uint8Array;
  whole?: boolean;
  cluster_m?: number;
  cluster_x?: Uint8Array;
  cluster_y?: Uint8Array;
  cluster_count?: Uint8Array;
  radius?: Uint8Array;
};
export type DotsFrame = {
  op: "dots";
  venue: string;
  level: number;
  tick: number;
  pseudonym: Uint8Array;
  x: Uint8Array;
  y: Uint8Array;
  radius?: Uint8Array;
};
export type DensityFrame = {
  op: "density";
  venue: string;
  level: number;
  tick: number;
  x0_m: number;
  y0_m: number;
  cell_m: number;
  cols: number;
  rows: number;
  count: Uint8Array;
};
export type Stats = {
  op: "stats";
  venue: string;
  tick: number;
  inside: number[];
  pushes: number;
  entries: number;
  exits: number;
  dwells: number;
  tick_ms: number;
  zones: Record<string, number>;
};
export type PaymentStats = { op: "payment_stats"; payments: number; refused: number; volume: Record<string, number> };
export type OfferState = { op: "offer_state"; venue: string; offer: Offer; ended: boolean; place?: Place };
export type Parking = { op: "parking"; venue: string; total: number; free: number; seq?: number; place?: Place };
export type Members = { op: "members"; seq: number; topic: string; count: number; members?: Member[]; whole?: boolean };
export type MembersChanged = { op: "members_changed"; topic: string; count: number; joined?: Member[]; left?: Member[]; whole?: boolean };
export type Skipped = { op: "skipped"; topic: string; count: number };
export type ErrorFrame = { op: "error"; code: string; message: string; retryable?: boolean; seq?: number };
export type Bye = { op: "bye"; code: string; message: string; reconnect: boolean; retry_after_s?: number };

export type ServerFrame =
  | ArServerFrame
  | SpaceServerFrame
  | Welcome
  | Pong
  | Taken
  | Consent
  | Located
  | Done
  | WalkedIn
  | Stores
  | OfferList
  | ZoneState
  | ClockState
  | Push
  | Closed
  | Rewind
  | Paid
  | BalanceIs
  | StatementIs
  | TillIs
  | ItemIs
  | Bought
  | Books
  | Subscribed
  | DotsFrame
  | DotsViewFrame
  | DensityFrame
  | Stats
  | PaymentStats
  | OfferState
  | Parking
  | Members
  | MembersChanged
  | Skipped
  | ErrorFrame
  | Bye; // prettier-ignore

export type ServerOp = ServerFrame["op"];
export type FrameOf<Op extends ServerOp> = Extract<ServerFrame, { op: Op }>;
