import { describe, expect, it } from "vitest";
import { laneFor, windowOf } from "../src/charts/Timeline";
import { venueTime } from "../src/format";
import { perSecond, phaseOf } from "../src/operator/model";
import { SPEED, step } from "../src/shopper/walk";
import { DEFAULT_LAYERS, formatView, parseView, type View } from "../src/url";
import { completeVenue, covers, middleOf, VenueIndex } from "../src/venue";

describe("the address", () => {
  const views: View[] = [
    { screen: "start" },
    { screen: "operator", tenant: "demo", venue: "parkside", layers: DEFAULT_LAYERS },
    {
      screen: "operator",
      tenant: "demo",
      venue: "parkside",
      level: 2,
      camera: { x: 12.5, y: -3.5, zoom: 2.25 },
      selected: "L0-12",
      layers: ["density"],
    },
    { screen: "operator", tenant: "demo", venue: "parkside", layers: [] },
    { screen: "operator", tenant: "demo", venue: "parkside", layers: ["heat"], tool: "ways", from: "L0-12", to: "@1,12.5,-7.0" },
    { screen: "ar", tenant: "demo", venue: "parkside", level: 0, scene: "hall", anchor: "000102030405060708090a0b0c0d0e0f" },
    { screen: "ar", tenant: "demo", venue: "parkside" },
    { screen: "shopper", tenant: "a.b", venue: "x_y-z", location: "north_entrance" },
    { screen: "shopper", tenant: "demo", venue: "parkside" },
  ];
  it.each(views)("holds the view %j", (view) => expect(parseView(formatView(view))).toEqual(view));
  it.each(["", "#", "#/", "#/operator", "#/operator/demo", "#/nothing/a/b", "#/operator/%zz/x", "#/operator/../x", "#/operator/a b/x"])(
    "%j shows the start page",
    (hash) => expect(parseView(hash)).toEqual({ screen: "start" }),
  );
  it("leaves out what cannot be read", () => {
    expect(parseView("#/operator/a/b?tool=nuke&from=@1,2&to=@1,2,3;4")).toEqual({
      screen: "operator",
      tenant: "a",
      venue: "b",
      layers: DEFAULT_LAYERS,
    });
    expect(parseView("#/operator/a/b?level=-1&at=1,x,2&unit=%00&layers=people,secrets")).toEqual({
      screen: "operator",
      tenant: "a",
      venue: "b",
      layers: ["people"],
    });
    expect(parseView("#/ar/a/b?level=x&scene=a%20b&anchor=00FF")).toEqual({ screen: "ar", tenant: "a", venue: "b" });
    expect(parseView("#/operator/a/b?level=1.5&at=1,2,999")).toEqual({ screen: "operator", tenant: "a", venue: "b", layers: DEFAULT_LAYERS });
  });
});

const square = (x: number, y: number, w: number): [number, number][] => [
  [x, y],
  [x + w, y],
  [x + w, y + w],
  [x, y + w],
];
const doc = completeVenue({
  id: "v",
  name: "V",
  kind: "mall",
  origin: { lat_deg: 0, lon_deg: 0 },
  levels: [{ id: "L0", ordinal: 0, name: "Ground", short_name: "G", outline: [[square(0, 0, 100)]] }],
  units: [
    { id: "a", level_id: "L0", category: "room", polygon: [[square(10, 10, 10)]], till: true },
    { id: "b", level_id: "L0", category: "room", polygon: [[square(40, 40, 20)]] },
    { id: "c", level_id: "L0", category: "room", polygon: [[square(42, 42, 4)]] },
  ],
  openings: [{ id: "o", level_id: "L0", unit_id: "a", a: [14, 10], b: [16, 10] }],
  occupants: [
    { id: "oa", unit_id: "a", name: "Café Zoë", category: "café", tags: ["coffee"], popularity: 3 },
    { id: "ob", unit_id: "b", name: "Big Books", category: "books" },
    { id: "oc", unit_id: "c", name: "Book Corner", category: "books" },
  ],
});
const index = new VenueIndex(doc);

describe("the venue", () => {
  it("fills what documents leave out", () => {
    expect(doc.zones).toEqual([]);
    expect(doc.connectors).toEqual([]);
  });
  it.each([
    ["cafe zoe", "a"], ["CAFÉ", "a"], ["zo", "a"], ["corner", "c"], ["books", "b"], ["coffee", "a"], ["bgbk", "b"],
  ])("search for %j finds %s first", (text, id) => expect(index.search(text)[0]?.id).toBe(id)); // biome-ignore format: table
  it("search for nothing, or for what is not there, finds nothing", () => {
    expect(index.search("  ")).toEqual([]);
    expect(index.search("zzzz")).toEqual([]);
  });
  it("knows the smallest named place under a point", () => {
    expect(index.at(0, 43, 43)?.id).toBe("c");
    expect(index.at(0, 55, 55)?.id).toBe("b");
    expect(index.at(0, 1, 1)).toBeUndefined();
  });
  it("hangs offers in the middle of the first opening, else inside", () => {
    expect(index.anchorOf("a")?.point).toEqual([15, 10]);
    const inside = index.anchorOf("b")!.point;
    expect(covers(index.byId.get("b")!.polygon, inside[0], inside[1])).toBe(true);
  });
  it("finds a middle that lies inside a shape with an arm and with a hole", () => {
    const arm: [number, number][] = [[0, 0], [30, 0], [30, 4], [4, 4], [4, 30], [0, 30]]; // biome-ignore format: a ring
    const ringed = [[square(0, 0, 30), square(8, 8, 14)]];
    for (const shape of [[[arm]], ringed]) {
      const [x, y] = middleOf(shape);
      expect(covers(shape, x, y)).toBe(true);
    }
  });
});

describe("walking", () => {
  const floor = doc.levels[0]!.outline;
  it("goes straight, no faster than a person", () => {
    const next = step({ point: [10, 10], target: [10, 90] }, 1, floor);
    expect(next.point[0]).toBeCloseTo(10);
    expect(next.point[1]).toBeCloseTo(10 + SPEED);
    expect(next.headingRad).toBeCloseTo(Math.PI / 2);
  });
  it("arrives and stands", () => {
    const next = step({ point: [10, 10], target: [10.5, 10] }, 1, floor);
    expect(next.point).toEqual([10.5, 10]);
    expect(next.target).toBeUndefined();
    expect(step(next, 1, floor)).toBe(next);
  });
  it("never leaves the floor", () => {
    let walker = { point: [99, 50] as [number, number], target: [200, 50] as [number, number] | undefined };
    for (let i = 0; i < 50; i++) walker = { target: undefined, ...step(walker, 0.5, floor) };
    expect(covers(floor, ...walker.point)).toBe(true);
    expect(walker.target).toBeUndefined();
  });
});

describe("figures", () => {
  it("a rate needs two readings, and a counter that went back gives none", () => {
    expect(perSecond(undefined, 10, 5)).toBeUndefined();
    expect(perSecond({ at: 10, n: 5 }, 12, 25)).toBe(10);
    expect(perSecond({ at: 10, n: 50 }, 12, 25)).toBeUndefined();
  });
  it("an offer is planned, active, then ended", () => {
    const offer = {
      id: "o",
      unit_id: "a",
      title: "T",
      text: "",
      audience: { type: "inside" as const },
      starts_tick: 10,
      ends_tick: 20,
      cooldown_ticks: 0,
      cap: 1,
      flash: false,
      ended: false,
    };
    expect([9, 10, 19, 20].map((tick) => phaseOf(offer, tick))).toEqual(["planned", "active", "active", "ended"]);
    expect(phaseOf({ ...offer, ended: true }, 12)).toBe("ended");
  });
  it("the venue's clock reads hours, minutes, seconds", () => expect(venueTime(36_610)).toBe("01:01:01"));
  it("bars in the timeline share a lane only where they do not touch", () => {
    const taken: [number, number][][] = [];
    expect([laneFor(taken, 0, 10), laneFor(taken, 5, 15), laneFor(taken, 10, 20), laneFor(taken, 0, 30), laneFor(taken, 0, 30)]).toEqual([
      0,
      1,
      0,
      2,
      undefined,
    ]);
    expect(windowOf(0)[0]).toBe(0);
    expect(windowOf(100_000)[1]).toBeGreaterThan(100_000);
  });
});
