/** A bounded memory of ids: pushes come at least once on the wire and are shown once. At its limit the oldest id is forgotten. */
export class Seen {
  readonly #ids = new Set<string>();

  constructor(readonly limit = 2048) {}

  /** True the first time an id is offered. */
  first(id: string): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > this.limit) this.#ids.delete(this.#ids.values().next().value as string);
    return true;
  }

  get size(): number {
    return this.#ids.size;
  }
}
