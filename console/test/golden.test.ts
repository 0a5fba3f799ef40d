/** The server's own encoder wrote tests/gateway/golden; what the console reads from those bytes must be what their JSON twins say. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { decode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { decodeMessage, encodeFrame, f4, u2, u4 } from "../src/client/codec";
import type { DensityFrame, DotsFrame, ServerFrame } from "../src/client/frames";

const folder = fileURLToPath(new URL("../../tests/gateway/golden/", import.meta.url));
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".msgpack"))
  .map((name) => name.replace(".msgpack", ""));
const bytes = (name: string) => Uint8Array.from(Buffer.from(readFileSync(`${folder}${name}.msgpack`, "utf8").trim(), "hex"));
const twin = (name: string) => JSON.parse(readFileSync(`${folder}${name}.json`, "utf8")) as Record<string, unknown>;

/** Bytes as base64, as the JSON format carries them. */
const jsonable = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Array.isArray(value)) return value.map(jsonable);
  if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, jsonable(v)]));
  return value;
};

const SERVER: ServerFrame["op"][] = [
  "welcome", "pong", "taken", "located", "done", "consent", "walked_in", "stores", "offer_list", "zone_state", "clock_state", "push", "closed", "rewind", "paid",
  "balance_is", "statement_is", "till_is", "books", "subscribed", "dots", "dots_view", "density", "stats", "payment_stats", "offer_state", "parking", "members", "members_changed", "skipped", "error", "bye",
  "anchors_are", "anchor_graph", "anchors_changed", "scene_delta", "scene_edits", "presence_is", "localised", "not_localised",
  "route_is", "no_route", "access", "zone_list", "zone", "measures", "heat", "parking_compared", "edited",
]; // biome-ignore format: a list of names

describe("golden frames", () => {
  it("are there for every frame that the console reads", () => {
    expect(SERVER.filter((op) => !names.includes(op))).toEqual([]);
  });
  it.each(SERVER)("%s decodes to what its JSON twin says", (op) => {
    const [frame] = decodeMessage(bytes(op));
    expect(frame?.op).toBe(op);
    expect(jsonable(frame)).toMatchObject(twin(op));
  });
  it.each([
    "anchors_near",
    "resolve_anchors",
    "get_anchor_graph",
    "scene_sync",
    "localise",
    "hello",
    "walk_in",
    "move",
    "observe",
    "give_consent",
    "ack",
    "pay",
    "subscribe",
    "get_members",
    "find_stores",
    "search",
    "create_offer",
    "get_zone",
    "transfer",
    "statement",
    "refund",
    "hold",
    "post",
    "void",
    "get_till",
    "put_item",
    "get_item",
    "buy",
    "grant",
    "route",
    "set_access",
    "draw_zone",
    "measure",
    "count_gates",
    "compare_parking",
    "recount",
    "edit_venue",
    "get_edits",
  ])("%s, encoded here, reads as the server's bytes do", (op) => {
    const golden = decode(bytes(op)) as { op: string };
    expect(jsonable(decode(encodeFrame(golden)))).toEqual(jsonable(golden));
  });
  it("hold as an array of frames in one message too", () => {
    const two = Uint8Array.from([0x92, ...bytes("pong"), ...bytes("done")]);
    expect(decodeMessage(two).map((frame) => frame.op)).toEqual(["pong", "done"]);
  });
  it("carry columns of equal length", () => {
    const dots = decodeMessage(bytes("dots"))[0] as DotsFrame;
    expect(f4(dots.x)).toHaveLength(u4(dots.pseudonym).length);
    expect(f4(dots.y)).toHaveLength(u4(dots.pseudonym).length);
    const density = decodeMessage(bytes("density"))[0] as DensityFrame;
    expect(u2(density.count)).toHaveLength(density.cols * density.rows);
  });
  it("offers come with the defaults that the server leaves out", () => {
    const list = decodeMessage(bytes("offer_list"))[0] as Extract<ServerFrame, { op: "offer_list" }>;
    for (const offer of list.offers)
      expect(offer).toMatchObject({ text: expect.any(String), cap: expect.any(Number), flash: expect.any(Boolean), starts_tick: expect.any(Number) });
  });
});

describe("a message that is no frame", () => {
  it.each([[1], ["text"], [{ seq: 1 }], [[{ op: 3 }]]])("%j is refused", (value) => {
    expect(() => decodeMessage(encodeFrame(value as never))).toThrow(TypeError);
  });
  it("a column cut short is refused", () => {
    expect(() => u4(new Uint8Array(7))).toThrow(RangeError);
  });
});
