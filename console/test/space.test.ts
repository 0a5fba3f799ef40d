/** Ways, zones and edits: what is drawn and said of frames that the server's own encoder wrote, and how the model keeps up. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { decodeMessage } from "../src/client/codec";
import type { ServerFrame } from "../src/client/frames";
import type { DrawnZone, HeatFrame, RouteIs } from "../src/client/space_frames";
import { RequestError, type Wire } from "../src/client/wire";
import { FOLLOWED, SpaceModel } from "../src/space/model";
import {
  boxOfZone,
  editText,
  figuresOfClosed,
  figuresOfRoute,
  figuresOfSketch,
  groundOf,
  heatOf,
  nameOfAccess,
  pointText,
  shapeOfSketch,
  waysOf,
  whereOf,
  zoneId,
} from "../src/space/shapes";
import { areaOf, completeVenue, type Point, VenueIndex } from "../src/venue";

const golden = (name: string) =>
  decodeMessage(
    Uint8Array.from(
      Buffer.from(readFileSync(fileURLToPath(new URL(`../../tests/gateway/golden/${name}.msgpack`, import.meta.url)), "utf8").trim(), "hex"),
    ),
  )[0] as ServerFrame;

const square = (x: number, y: number, w: number): Point[] => [[x, y], [x + w, y], [x + w, y + w], [x, y + w]]; // biome-ignore format: a ring
const level = (i: number) => ({ id: `L${i}`, ordinal: i, name: `Level ${i}`, short_name: `${i}`, outline: [[square(0, 0, 100)]] });
const index = new VenueIndex(
  completeVenue({
    id: "parkside",
    name: "Parkside",
    kind: "mall",
    origin: { lat_deg: 0, lon_deg: 0 },
    levels: [level(0), level(1), level(2)],
    units: [
      { id: "u-1", level_id: "L1", category: "room", polygon: [[square(10, 10, 10)]] },
      { id: "u-12", level_id: "L2", category: "room", polygon: [[square(40, 40, 20)]] },
      { id: "bare", level_id: "L1", category: "nonpublic", polygon: [[square(70, 70, 10)]] },
    ],
    openings: [{ id: "o", level_id: "L1", unit_id: "u-1", a: [14, 10], b: [16, 10] }],
    occupants: [{ id: "oa", unit_id: "u-1", name: "Café Zoë", category: "café" }],
    connectors: [
      { id: "lift-north", kind: "elevator", direction: "both", access: "public", stops: [{ level_id: "L1", point: [5, 5] }, { level_id: "L2", point: [6, 5] }] },
    ],
  }),
); // biome-ignore format: a venue

describe("a way", () => {
  const route = golden("route_is") as RouteIs;
  it("is drawn in full on its level, and as a shadow on the others", () => {
    const here = figuresOfRoute(route, 1, index).filter((f) => f.kind === "line");
    expect(here.map((f) => [f.level, f.colour])).toEqual([[1, "surface"], [1, "me"]]); // biome-ignore format: pairs
    const above = figuresOfRoute(route, 2, index).filter((f) => f.kind === "line");
    expect(above.map((f) => [f.level, f.colour])).toEqual([[2, "quiet"]]);
  });
  it("says at each change of levels where it leads, where the walk ends", () => {
    const names = (i: number) => figuresOfRoute(route, i, index).filter((f) => f.kind === "name");
    expect(names(1)).toMatchObject([{ text: "↑ 2", level: 1, point: [0, 0] }]);
    expect(names(2), "no walk follows: at the lift's own stop").toMatchObject([{ text: "↓ 1", level: 2, point: [6, 5] }]);
  });
  it("has a start and an end", () => {
    const points = figuresOfRoute(route, 1, index).filter((f) => f.kind === "point");
    expect(points.some((f) => f.hollow)).toBe(true);
    expect(points.length).toBe(3);
  });
  it.each([
    [{ stairs: false, escalators: false }, {}],
    [
      { stairs: true, escalators: false },
      { stairs_up: "avoid", stairs_down: "avoid" },
    ],
    [
      { stairs: false, escalators: true },
      { escalator_up: "avoid", escalator_down: "avoid" },
    ],
  ])("%j asks for %j", (avoid, ways) => expect(waysOf(avoid)).toEqual(ways));
  it("goes between places and points that the address holds", () => {
    expect(whereOf("u-1", index)).toEqual({ where: { place: "u-1" }, level: 1, point: [15, 10], name: "Café Zoë" });
    const text = pointText(1, [12.34, 15]);
    expect(text).toBe("@1,12.3,15.0");
    expect(whereOf(text, index)).toMatchObject({ where: { level: 1, x: 12.3, y: 15 }, name: "In Café Zoë, Level 1" });
    expect(whereOf("@1,99.0,1.0", index)?.name).toBe("Point on Level 1");
  });
  it.each([undefined, "nowhere", "@9,1.0,1.0", "@1,x,2"])("%j is no place of this venue", (text) => expect(whereOf(text, index)).toBeUndefined());
  it("marks what is closed on every level that it joins", () => {
    expect(figuresOfClosed(new Set(["lift-north", "u-1"]), index).map((f) => f.level)).toEqual([1, 2]);
    expect(nameOfAccess("lift-north", index)).toBe("Lift north");
    expect(nameOfAccess("u-1", index)).toBe("Café Zoë");
  });
});

describe("a drawn zone", () => {
  const corners = square(0, 0, 10);
  it("is nothing with one corner, a line with two, an area with more", () => {
    expect(shapeOfSketch(corners.slice(0, 1))).toBeUndefined();
    expect(shapeOfSketch(corners.slice(0, 2))).toEqual({ type: "line", a: [0, 0], b: [10, 0] });
    expect(shapeOfSketch(corners)).toEqual({ type: "polygon", polygon: [[corners]] });
    expect(figuresOfSketch(1, corners).map((f) => f.kind)).toEqual(["area", "point", "point", "point", "point"]);
  });
  it.each([
    ["Queue at the bakery", "queue-at-the-bakery"],
    ["Café Zoë!", "cafe-zoe"],
    ["الطابور", "zone"],
    ["taken", "taken-3"],
    ["-".repeat(9), "zone"],
  ])("named %j gets the id %j", (name, id) => expect(zoneId(name, (t) => t === "taken" || t === "taken-2")).toBe(id));
  it.each([
    [{ type: "polygon", polygon: [[corners]] }, 100],
    [{ type: "circle", x_m: 3, y_m: 4, radius_m: 5 }, Math.PI * 25],
    [{ type: "corridor", line: [[0, 0], [10, 0]], half_width_m: 2 }, 40],
    [{ type: "unit", unit_id: "u-1" }, 100],
    [{ type: "unit", unit_id: "gone" }, 0],
    [{ type: "line", a: [0, 0], b: [1, 1] }, 0],
  ] as const)("%j covers about %d m²", (shape, area) => {
    expect(Math.abs(areaOf(groundOf(shape as never, index)) - area)).toBeLessThanOrEqual(0.01 * area);
  }); // biome-ignore format: a table
  it("is looked at where it lies, a line too", () => {
    const zone = (shape: DrawnZone["shape"]): DrawnZone => ({ id: "z", name: "Z", level: 0, shape });
    expect(boxOfZone(zone({ type: "line", a: [3, 9], b: [1, 2] }), index)).toEqual({ x0: 1, y0: 2, x1: 3, y1: 9 });
    expect(boxOfZone(zone({ type: "circle", x_m: 0, y_m: 0, radius_m: 2 }), index)).toMatchObject({ x0: -2, x1: 2 });
  });
});

describe("heat", () => {
  it("is person-minutes a square metre", () => {
    const { grid, most } = heatOf(golden("heat") as HeatFrame);
    expect(most).toBeCloseTo(1.5 / 60 / 16);
    expect([...grid.value]).toEqual([expect.closeTo(most), 0]);
  });
  it("with cells missing is refused", () => {
    expect(() => heatOf({ ...(golden("heat") as HeatFrame), rows: 2 })).toThrow(RangeError);
  });
});

describe("an edit", () => {
  it.each([
    [{ type: "close_unit", unit_id: "u-1" }, "Closed Café Zoë"],
    [{ type: "open_unit", unit_id: "bare" }, "Opened bare"],
    [{ type: "relabel", unit_id: "u-1", occupant: "Zoë’s" }, "u-1 is now “Zoë’s”"],
    [{ type: "relabel", unit_id: "u-1", occupant: "" }, "The occupant of u-1 moved out"],
  ] as const)("%j reads %j", (edit, text) => expect(editText(edit, index)).toBe(text));
  it("may choose a unit without a name, which a click elsewhere does not", () => {
    expect(index.at(1, 75, 75)).toBeUndefined();
    expect(index.at(1, 75, 75, true)?.isClosed).toBe(true);
  });
});

/** A wire whose answers are told by the test. */
class Told {
  topics = new Set<string>();
  asked: string[] = [];
  #zone: ((frame: unknown) => void) | undefined;
  constructor(readonly answer: (op: string, body: Record<string, unknown>) => unknown) {}
  on(_: string, handler: (frame: unknown) => void) {
    this.#zone = handler;
    return () => {
      this.#zone = undefined;
    };
  }
  subscribe(topic: string) {
    this.topics.add(topic);
    return () => this.topics.delete(topic);
  }
  async request(op: string, body: Record<string, unknown>) {
    this.asked.push(op);
    return this.answer(op, body);
  }
  say(zone: string) {
    this.#zone?.({ ...golden("zone"), zone });
  }
  get wire() {
    return this as unknown as Wire;
  }
}

describe("the space model", () => {
  const zone = (id: string): DrawnZone => ({ id, name: id, level: 0, shape: { type: "line", a: [0, 0], b: [1, 0] } });
  it("reads zones, closures and edits, and follows the zones it has", async () => {
    const told = new Told((op) =>
      op === "get_zones" ? { zones: [zone("a"), zone("b")] } : op === "get_access" ? { closed: ["lift-north"] } : { ...golden("edited") },
    );
    const model = new SpaceModel(told.wire, "parkside");
    await model.refresh();
    expect([...told.topics]).toEqual(["venue/parkside/zone/a", "venue/parkside/zone/b"]);
    expect([...model.closed.value]).toEqual(["lift-north"]);
    expect(model.edits.value?.done).toHaveLength(2);
    told.say("a");
    told.say("stranger");
    expect([...model.counts.value.keys()]).toEqual(["a"]);
    await model.erase("a");
    expect([...told.topics]).toEqual(["venue/parkside/zone/b"]);
    expect(model.counts.value.size).toBe(0);
    model.close();
    expect(told.topics.size).toBe(0);
  });
  it("follows no more zones than its limit", async () => {
    const told = new Told((op) => (op === "get_zones" ? { zones: Array.from({ length: FOLLOWED + 5 }, (_, i) => zone(`z${i}`)) } : { closed: [] }));
    const model = new SpaceModel(told.wire, "parkside");
    await model.readZones();
    expect(told.topics.size).toBe(FOLLOWED);
  });
  it("says what it may not read, and shows the rest", async () => {
    const told = new Told((op) => {
      if (op === "get_edits") throw new RequestError("forbidden", "edits are for operators", false);
      return op === "get_zones" ? { zones: [zone("a")] } : { closed: [] };
    });
    const model = new SpaceModel(told.wire, "parkside");
    await model.refresh();
    expect(model.failure.value.edits?.code).toBe("forbidden");
    expect(model.zones.value).toHaveLength(1);
  });
  it("keeps the same set of closures while nothing changes, so that no way is asked for twice", async () => {
    const told = new Told(() => ({ closed: ["x"] }));
    const model = new SpaceModel(told.wire, "parkside");
    await model.readAccess();
    const first = model.closed.value;
    await model.readAccess();
    expect(model.closed.value).toBe(first);
  });
});
