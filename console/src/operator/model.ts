/** What the operator's view knows: the newest figures, their history for the lines, the offers. Owns no DOM; fed by the wire's frames. */
import { computed, signal } from "@preact/signals";
import type { Offer, PaymentStats, Stats } from "../client/frames";
import type { Wire } from "../client/wire";

/** Samples kept: ten minutes at 1 Hz. */
export const HISTORY = 600;

export type Series = { t: number[]; v: number[] };
const push = (series: Series, t: number, v: number): Series => ({ t: [...series.t.slice(-HISTORY + 1), t], v: [...series.v.slice(-HISTORY + 1), v] });
const none = (): Series => ({ t: [], v: [] });

/** Rate of a counter between its last two readings; undefined at the first one and where the counter went back (a restart). */
export function perSecond(before: { at: number; n: number } | undefined, at: number, n: number): number | undefined {
  if (before === undefined || n < before.n || at - before.at < 0.2) return undefined;
  return (n - before.n) / (at - before.at);
}

export class OperatorModel {
  readonly stats = signal<Stats | undefined>(undefined);
  readonly payments = signal<PaymentStats | undefined>(undefined);
  readonly tick = signal(0);
  readonly lateRows = signal(0);
  readonly driven = signal(false);
  readonly offers = signal<ReadonlyMap<string, Offer & { ended: boolean }>>(new Map());
  readonly series = signal({ inside: none(), pushes: none(), payments: none(), tickMs: none() });
  readonly inside = computed(() => this.stats.value?.inside.reduce((a, b) => a + b, 0) ?? 0);
  #pushes: { at: number; n: number } | undefined;
  #paid: { at: number; n: number } | undefined;
  readonly #off: (() => void)[] = [];

  constructor(
    readonly wire: Wire,
    readonly venue: string,
    readonly now: () => number = () => Date.now() / 1000,
  ) {
    const mine = (frame: { venue: string }) => frame.venue === venue;
    this.#off.push(
      wire.on("stats", (f) => mine(f) && this.#stats(f)),
      wire.on("payment_stats", (f) => this.#payments(f)),
      wire.on("closed", (f) => {
        if (!mine(f)) return;
        this.tick.value = f.tick;
        this.lateRows.value = f.late_rows;
      }),
      wire.on("offer_state", (f) => mine(f) && this.#offer(f.offer, f.ended)),
      wire.subscribe(`venue/${venue}/stats`, 1),
      wire.subscribe(`venue/${venue}/clock`, 2),
      wire.subscribe(`venue/${venue}/offers`),
      wire.subscribe("payments", 1),
    );
  }

  /** Read what topics do not repeat: the offers and the clock. Called at each connection. */
  async refresh(): Promise<void> {
    const [list, clock] = await Promise.all([this.wire.request("get_offers", { venue: this.venue }), this.wire.request("get_clock", { venue: this.venue })]);
    const known = new Map(this.offers.value);
    for (const offer of list.offers) known.set(offer.id, { ...offer, ended: false });
    this.offers.value = known;
    this.tick.value = Math.max(this.tick.value, clock.tick);
    this.driven.value = clock.driven;
    this.lateRows.value = clock.late_rows;
  }

  close(): void {
    for (const off of this.#off) off();
  }

  #stats(f: Stats): void {
    const t = this.now();
    const rate = perSecond(this.#pushes, t, f.pushes);
    this.#pushes = { at: t, n: f.pushes };
    this.stats.value = f;
    this.tick.value = Math.max(f.tick, this.tick.value);
    const before = this.series.value;
    this.series.value = {
      ...before,
      inside: push(before.inside, t, f.inside.reduce((a, b) => a + b, 0)), // biome-ignore format: one line
      tickMs: push(before.tickMs, t, f.tick_ms),
      pushes: rate === undefined ? before.pushes : push(before.pushes, t, rate),
    };
  }

  #payments(f: PaymentStats): void {
    const t = this.now();
    const rate = perSecond(this.#paid, t, f.payments);
    this.#paid = { at: t, n: f.payments };
    this.payments.value = f;
    if (rate !== undefined) this.series.value = { ...this.series.value, payments: push(this.series.value.payments, t, rate) };
  }

  #offer(offer: Offer, ended: boolean): void {
    const known = new Map(this.offers.value);
    known.set(offer.id, { ...offer, ended });
    // At most 500 are kept, the oldest ended ones go first.
    if (known.size > 500) for (const [id, o] of known) if (o.ended && known.size > 500) known.delete(id);
    this.offers.value = known;
  }
}

export type OfferPhase = "active" | "planned" | "ended";
export function phaseOf(offer: Offer & { ended: boolean }, tick: number): OfferPhase {
  if (offer.ended || tick >= offer.ends_tick) return "ended";
  return tick >= offer.starts_tick ? "active" : "planned";
}
