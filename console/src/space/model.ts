/** What the operator knows of the venue's space: what is closed, which zones are drawn and who is in them, what was edited. Owns no DOM; fed by the wire's frames. */
import { signal } from "@preact/signals";
import type { DrawnZone, Edited, LiveEdit, ZoneFrame } from "../client/space_frames";
import { RequestError, type Wire } from "../client/wire";

/** Drawn zones whose figures are followed at once; a venue may have more, and those tell theirs when they are chosen. */
export const FOLLOWED = 48;

export class SpaceModel {
  /** Ids of connectors, openings and units. */
  readonly closed = signal<ReadonlySet<string>>(new Set());
  readonly zones = signal<readonly DrawnZone[]>([]);
  readonly counts = signal<ReadonlyMap<string, ZoneFrame>>(new Map());
  /** Undefined while it was not read, or where this role may not. */
  readonly edits = signal<Edited | undefined>(undefined);
  /** Why the last of each reading failed. */
  readonly failure = signal<Partial<Record<"zones" | "access" | "edits", RequestError>>>({});
  readonly #topics = new Map<string, () => void>();
  readonly #off: () => void;

  constructor(
    readonly wire: Wire,
    readonly venue: string,
  ) {
    this.#off = wire.on("zone", (f) => {
      if (f.venue !== venue || !this.#topics.has(f.zone)) return;
      this.counts.value = new Map(this.counts.value).set(f.zone, f);
    });
  }

  close(): void {
    this.#off();
    for (const off of this.#topics.values()) off();
    this.#topics.clear();
  }

  /** Read what no topic repeats. Called at each connection. */
  async refresh(): Promise<void> {
    await Promise.all([this.readZones(), this.readAccess(), this.readEdits()]);
  }

  readAccess(): Promise<void> {
    return this.#read("access", async () => {
      this.#closed((await this.wire.request("get_access", { venue: this.venue })).closed);
    });
  }

  readZones(): Promise<void> {
    return this.#read("zones", async () => {
      this.zones.value = (await this.wire.request("get_zones", { venue: this.venue })).zones;
      this.#follow();
    });
  }

  readEdits(): Promise<void> {
    return this.#read("edits", async () => {
      this.edits.value = await this.wire.request("get_edits", { venue: this.venue });
    });
  }

  /** Close or open what people pass; resolves once it is durable. */
  async setAccess(id: string, open: boolean): Promise<void> {
    this.#closed((await this.wire.request("set_access", { venue: this.venue, ...(open ? { open: [id] } : { close: [id] }) })).closed);
  }

  async draw(zone: DrawnZone): Promise<void> {
    await this.wire.request("draw_zone", { venue: this.venue, zone });
    this.zones.value = [...this.zones.value.filter((known) => known.id !== zone.id), zone];
    this.#follow();
    await this.readZones();
  }

  async erase(id: string): Promise<void> {
    await this.wire.request("erase_zone", { venue: this.venue, zone: id });
    this.zones.value = this.zones.value.filter((zone) => zone.id !== id);
    this.#follow();
  }

  async edit(edit: LiveEdit): Promise<void> {
    this.edits.value = await this.wire.request("edit_venue", { venue: this.venue, edit });
  }

  async undo(): Promise<void> {
    this.edits.value = await this.wire.request("undo_edit", { venue: this.venue });
  }

  async redo(): Promise<void> {
    this.edits.value = await this.wire.request("redo_edit", { venue: this.venue });
  }

  #closed(ids: readonly string[]): void {
    const known = this.closed.value;
    if (ids.length !== known.size || ids.some((id) => !known.has(id))) this.closed.value = new Set(ids);
  }

  #follow(): void {
    const wanted = new Set(this.zones.value.slice(0, FOLLOWED).map((zone) => zone.id));
    for (const [id, off] of this.#topics) {
      if (wanted.has(id)) continue;
      off();
      this.#topics.delete(id);
      const left = new Map(this.counts.value);
      left.delete(id);
      this.counts.value = left;
    }
    for (const id of wanted) if (!this.#topics.has(id)) this.#topics.set(id, this.wire.subscribe(`venue/${this.venue}/zone/${id}`, 1));
  }

  async #read(what: "zones" | "access" | "edits", read: () => Promise<void>): Promise<void> {
    try {
      await read();
      this.failure.value = { ...this.failure.value, [what]: undefined };
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.failure.value = { ...this.failure.value, [what]: error };
    }
  }
}
