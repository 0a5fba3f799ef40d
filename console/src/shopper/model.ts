/** What the shopper's view knows: where I am, what is near, offers that reached me, my wallet. Owns the walk and the pace of `move`; no DOM. */
import { computed, signal } from "@preact/signals";
import { u2 } from "../client/codec";
import type { DensityFrame, Located, Observed, Offer, Push, Store } from "../client/frames";
import { RequestError, type Wire } from "../client/wire";
import { bandOf } from "../map/field";
import type { Covariance } from "../map/region";
import type { Connector, Point, VenueIndex } from "../venue";
import { step, type Walker } from "./walk";

const MOVE_MS = 1000;
const STILL_MS = 10_000;
const STORES_MS = 2000;
/** A move shorter than this has no direction, metres. */
const TURN_M = 0.5;
/** How near a till must be to pay at it, metres. */
export const TILL_M = 15;
/** How near a connector's end must be to take it, metres. */
const CONNECTOR_M = 8;
/** How far around me "here" reaches when it is said how full it is, metres. */
const CROWD_M = 10;
/** What a position that the person sets by hand is worth, metres. */
export const RADIUS_M = 5;

export type Payment = {
  unit: string;
  name: string;
  amount: number;
  currency: string;
  key: Uint8Array;
  state: "sending" | "paid" | "unknown" | "refused";
  message?: string;
};

/** What the phone's readings said last. `levels`: the probability of each level. */
export type Fix = { radiusM: number; cov: Covariance; levels: readonly number[]; state: Located["state"] };

export class ShopperModel {
  readonly level = signal(0);
  readonly walker = signal<Walker | undefined>(undefined);
  readonly stores = signal<Store[]>([]);
  readonly toasts = signal<Push[]>([]);
  readonly saved = signal<Push[]>([]);
  readonly offers = signal<ReadonlyMap<string, Offer>>(new Map());
  readonly balances = signal<Record<string, number> | undefined>(undefined);
  readonly payment = signal<Payment | undefined>(undefined);
  /** Level-of-service band (0 to 5) of the fullest cell near me. */
  readonly crowd = signal<number | undefined>(undefined);
  readonly left = signal(false);
  /** Whether it may be known where I am: `free` where this house does not ask, `unknown` until it has said. */
  readonly consent = signal<"unknown" | "free" | "needed" | "given" | "withdrawn">("unknown");
  /** Where the phone's readings put me, once there was a dot; while there is one, taps do not move me. */
  readonly fix = signal<Fix | undefined>(undefined);
  #lastMove = Number.NEGATIVE_INFINITY;
  #lastStores = Number.NEGATIVE_INFINITY;
  #askedAt: { level: number; point: Point } | undefined;
  #asking = false;
  readonly #off: (() => void)[];

  /** The stop of a connector within reach, and the level it leads to. */
  readonly ways = computed(() => {
    const walker = this.walker.value;
    const levelId = this.index.doc.levels[this.level.value]?.id;
    if (walker === undefined || this.fix.value !== undefined) return [];
    const out: { connector: Connector; level: number; point: Point }[] = [];
    for (const c of this.index.doc.connectors) {
      if (c.access === "staff") continue;
      const here = c.stops.findIndex((stop) => stop.level_id === levelId);
      if (here < 0) continue;
      const at = c.stops[here]!.point;
      if (Math.hypot(at[0] - walker.point[0], at[1] - walker.point[1]) > CONNECTOR_M) continue;
      c.stops.forEach((stop, i) => {
        const allowed = c.direction === "both" || (c.direction === "forward" ? i > here : i < here);
        if (i !== here && allowed && out.length < 6)
          out.push({ connector: c, level: this.index.levelIndex.get(stop.level_id) ?? 0, point: stop.point });
      });
    }
    return out;
  });

  /** The shop with a till where I stand, else the nearest one within TILL_M. */
  readonly till = computed(() => {
    const walker = this.walker.value;
    if (walker === undefined) return undefined;
    const [x, y] = walker.point;
    const inside = this.index.at(this.level.value, x, y);
    if (inside?.till) return inside;
    let best: { id: string; d: number } | undefined;
    for (const spot of this.index.spotsByLevel[this.level.value] ?? []) {
      if (!spot.till) continue;
      const at = this.index.anchorOf(spot.id)?.point ?? spot.centre;
      const d = Math.hypot(at[0] - x, at[1] - y);
      if (d <= TILL_M && (best === undefined || d < best.d)) best = { id: spot.id, d };
    }
    return best === undefined ? undefined : this.index.byId.get(best.id);
  });

  constructor(
    readonly wire: Wire,
    readonly index: VenueIndex,
  ) {
    const mine = (frame: { venue: string }) => frame.venue === index.doc.id;
    this.#off = [
      wire.on("push", (push) => mine(push) && this.#push(push)),
      wire.on("offer_state", (f) => mine(f) && this.#know([f.offer])),
      wire.on("density", (f) => mine(f) && this.#density(f)),
      wire.on("error", (f) => f.code === "consent_needed" && this.#offTheMap("needed")), // taken back on another device
      wire.subscribe(`venue/${index.doc.id}/offers`),
    ];
  }

  close(): void {
    for (const off of this.#off) off();
  }

  /** Read what topics do not repeat. Called at each connection. */
  async refresh(): Promise<void> {
    this.#lastMove = Number.NEGATIVE_INFINITY; // say at once where I am
    const [offers, balance] = await Promise.all([this.wire.request("get_offers", { venue: this.index.doc.id }), this.wire.request("balance", {})]);
    this.#know(offers.offers);
    this.balances.value = balance.balances;
  }

  /** What a welcome says. */
  stand(consent: "given" | "needed" | undefined): void {
    if (consent === "needed") {
      if (this.consent.value !== "withdrawn") this.#offTheMap("needed");
    } else this.consent.value = consent ?? "free";
  }

  /** I agree, having been shown the text of this id. */
  async agree(text: string): Promise<void> {
    await this.wire.request("give_consent", { text });
    this.consent.value = "given";
  }

  /** I take that back. */
  async withdraw(): Promise<void> {
    await this.wire.request("withdraw_consent", {});
    this.#offTheMap("withdrawn");
  }

  askAgain(): void {
    this.consent.value = "needed";
  }

  async walkIn(location: string): Promise<void> {
    const answer = await this.wire.request("walk_in", { venue: this.index.doc.id, location });
    this.left.value = false;
    this.level.value = answer.level;
    this.walker.value = { point: [answer.x, answer.y] };
    this.stores.value = answer.stores;
    this.#askedAt = { level: answer.level, point: [answer.x, answer.y] };
    this.#lastMove = Number.NEGATIVE_INFINITY;
  }

  walkTo(target: Point): void {
    const walker = this.walker.value;
    if (walker && this.fix.value === undefined) this.walker.value = { ...walker, target };
  }

  /**
   * What the phone sensed since the last call, from the app that holds this page (a browser alone hears no Wi-Fi). From the first dot on the readings say where I am.
   * The answer's state; a refusal (no radio map) is thrown.
   */
  async sense(observed: Omit<Observed, "venue">): Promise<Located["state"]> {
    const told = await this.wire.request("observe", { venue: this.index.doc.id, ...observed });
    if (told.state === "outside") {
      if (this.fix.value !== undefined) {
        this.fix.value = undefined;
        this.walker.value = undefined;
        this.left.value = true;
      }
    } else if (told.level !== undefined && told.x !== undefined && told.y !== undefined && told.cov && told.radius_m !== undefined) {
      const point: Point = [told.x, told.y];
      const before = this.walker.value;
      const same = before !== undefined && this.level.value === told.level;
      const moved = same ? Math.hypot(point[0] - before.point[0], point[1] - before.point[1]) : 0;
      const headingRad = same && moved >= TURN_M ? Math.atan2(point[1] - before.point[1], point[0] - before.point[0]) : before?.headingRad;
      if (this.level.value !== told.level) this.crowd.value = undefined;
      this.left.value = false;
      this.level.value = told.level;
      this.fix.value = { radiusM: told.radius_m, cov: told.cov, levels: told.levels ?? [], state: told.state };
      this.walker.value = headingRad === undefined ? { point } : { point, headingRad };
    } else if (this.fix.value !== undefined && told.state !== "late") this.fix.value = { ...this.fix.value, state: told.state };
    return told.state;
  }

  /** One step of the keyboard: two metres that way. */
  nudge(dx: number, dy: number): void {
    const walker = this.walker.value;
    if (walker) this.walkTo([walker.point[0] + 2 * dx, walker.point[1] + 2 * dy]);
  }

  take(way: { level: number; point: Point }): void {
    this.level.value = way.level;
    this.walker.value = { point: way.point };
    this.crowd.value = undefined;
    this.#lastMove = Number.NEGATIVE_INFINITY;
  }

  /** Called a few times a second: walk, tell the server once a second, ask what is near when I have moved. */
  beat(dtS: number, nowMs: number): void {
    const walker = this.walker.value;
    if (walker === undefined || this.left.value) return;
    const level = this.level.value;
    const sensed = this.fix.value !== undefined;
    const next = sensed ? walker : step(walker, dtS, this.index.doc.levels[level]?.outline ?? []);
    if (next !== walker) this.walker.value = next;
    const due = next.target === undefined && next === walker ? STILL_MS : MOVE_MS;
    if (!sensed && nowMs - this.#lastMove >= due) {
      this.#lastMove = nowMs;
      this.wire.tell("move", { venue: this.index.doc.id, level, x: next.point[0], y: next.point[1] });
    }
    const at = this.#askedAt;
    const moved = at === undefined || at.level !== level || Math.hypot(at.point[0] - next.point[0], at.point[1] - next.point[1]) > 3;
    if (moved && !this.#asking && nowMs - this.#lastStores >= STORES_MS && this.wire.state.kind === "live") void this.#near(level, next.point, nowMs);
  }

  async leave(): Promise<void> {
    await this.wire.request("leave", { venue: this.index.doc.id });
    this.left.value = true;
    this.walker.value = undefined;
    this.fix.value = undefined;
  }

  dismiss(push: Push): void {
    this.toasts.value = this.toasts.value.filter((t) => t.id !== push.id);
  }

  save(push: Push): void {
    if (!this.saved.value.some((p) => p.id === push.id)) this.saved.value = [push, ...this.saved.value].slice(0, 50);
    this.dismiss(push);
  }

  /** Pay, or try the same payment again under the same key: the server gives a key one effect. */
  async pay(unit: string, name: string, amount: number, currency: string): Promise<void> {
    const before = this.payment.value;
    const same = before?.state === "unknown" && before.unit === unit && before.amount === amount && before.currency === currency;
    const key = same ? before.key : crypto.getRandomValues(new Uint8Array(16));
    const payment: Payment = { unit, name, amount, currency, key, state: "sending" };
    this.payment.value = payment;
    try {
      const paid = await this.wire.request("pay", { venue: this.index.doc.id, key, unit, amount, currency });
      this.balances.value = { ...this.balances.value, [currency]: paid.balance };
      this.payment.value = { ...payment, state: "paid" };
    } catch (error) {
      const e = error instanceof RequestError ? error : new RequestError("fault", String(error), true);
      this.payment.value = { ...payment, state: e.retryable ? "unknown" : "refused", message: e.message };
    }
  }

  #offTheMap(consent: "needed" | "withdrawn"): void {
    this.consent.value = consent;
    this.walker.value = undefined;
    this.toasts.value = [];
  }

  async #near(level: number, point: Point, nowMs: number): Promise<void> {
    this.#asking = true;
    this.#lastStores = nowMs;
    try {
      const answer = await this.wire.request("find_stores", { venue: this.index.doc.id, level, x: point[0], y: point[1], k: 12 });
      this.stores.value = answer.stores;
      this.#askedAt = { level, point };
    } catch {
      // the list stays as it is; the next beat asks again
    } finally {
      this.#asking = false;
    }
  }

  #push(push: Push): void {
    this.toasts.value = [...this.toasts.value, push].slice(-20);
  }

  #know(offers: readonly Offer[]): void {
    const known = new Map(this.offers.value);
    for (const offer of offers) known.set(offer.id, offer);
    this.offers.value = known;
  }

  #density(frame: DensityFrame): void {
    const walker = this.walker.value;
    if (frame.level !== this.level.value || walker === undefined) return;
    // Cells with fewer than three people read nothing here, so heads cannot be counted from them; how full the fullest one is can be told.
    const counts = u2(frame.count);
    const reach = Math.ceil(CROWD_M / frame.cell_m);
    const col = Math.floor((walker.point[0] - frame.x0_m) / frame.cell_m);
    const row = Math.floor((walker.point[1] - frame.y0_m) / frame.cell_m);
    let most = 0;
    for (let r = Math.max(0, row - reach); r <= Math.min(frame.rows - 1, row + reach); r++)
      for (let k = Math.max(0, col - reach); k <= Math.min(frame.cols - 1, col + reach); k++) most = Math.max(most, counts[r * frame.cols + k] ?? 0);
    this.crowd.value = bandOf(most / frame.cell_m ** 2);
  }
}
