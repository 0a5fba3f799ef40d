/** Every frame through the console's client: tests/gateway/test_conformance.py does the same with the Python client, from the same golden files. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { decode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import type { RequestOp, ServerFrame, ServerOp } from "../src/client/frames";
import { type SocketLike, Wire } from "../src/client/wire";

const folder = fileURLToPath(new URL("../../tests/gateway/golden/", import.meta.url));
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".msgpack"))
  .map((name) => name.replace(".msgpack", ""));
const bytes = (name: string) => Uint8Array.from(Buffer.from(readFileSync(`${folder}${name}.msgpack`, "utf8").trim(), "hex"));
const twin = (name: string) => JSON.parse(readFileSync(`${folder}${name}.json`, "utf8")) as Record<string, unknown>;
const modules = fileURLToPath(new URL("../../gateway/frames/", import.meta.url));
const source = readdirSync(modules)
  .filter((name) => name.endsWith(".py"))
  .map((name) => readFileSync(`${modules}${name}`, "utf8"))
  .join("\n");

/** Bytes as base64, as the JSON format carries them. */
const jsonable = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Array.isArray(value)) return value.map(jsonable);
  if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, jsonable(v)]));
  return value;
};

/** The classes of the union of client frames, by their tags. */
const union = new Set(/^ClientFrame = \(([^)]*)\)/m.exec(source)?.[1]?.match(/\w+/g));
const tags = new Map([...source.matchAll(/^class (\w+)\(Frame[^)]*tag="(\w+)"/gm)].map(([, kind, tag]) => [tag!, kind!]));
const isClient = (name: string) => union.has(tags.get(name) ?? "");
const clientFrames = names.filter(isClient);
const serverFrames = names.filter((name) => !isClient(name));
/** Said by the wire itself, or by nobody who waits for an answer. */
const OWN = ["hello", "ack", "saw", "watermark"];

const settle = async () => {
  for (let i = 0; i < 5; i++) await Promise.resolve();
};

class Socket implements SocketLike {
  binaryType = "";
  onopen: SocketLike["onopen"] = null;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  sent: Uint8Array[] = [];
  send(data: Uint8Array<ArrayBuffer>) {
    this.sent.push(data);
  }
  close() {}
  say(data: Uint8Array) {
    this.onmessage?.({ data: data.slice().buffer });
  }
}

async function live() {
  const socket = new Socket();
  const wire = new Wire({
    url: "ws://x",
    client: "phone-1",
    venue: "parkside",
    token: async () => undefined,
    guestOf: "demo",
    resume: { epoch: 1, offset: 42 },
    onState: () => undefined,
    surroundings: { socket: () => socket, now: () => 0, later: () => 0, cancel: () => undefined, random: () => 0.5 },
  });
  await settle();
  (socket.onopen as (() => void) | null)?.();
  socket.say(bytes("welcome"));
  return { socket, wire };
}

describe("conformance", () => {
  it("knows both halves of the protocol", () => {
    expect(clientFrames.length).toBeGreaterThan(60);
    expect(serverFrames.length).toBeGreaterThan(50);
  });

  it("says hello as the golden file has it", async () => {
    const { socket } = await live();
    expect(decode(socket.sent[0] as Uint8Array)).toEqual(decode(bytes("hello")));
  });

  it.each(clientFrames.filter((name) => !OWN.includes(name)))("sends %s as it was meant", async (name) => {
    const { socket, wire } = await live();
    const { op, seq, ...body } = decode(bytes(name)) as { op: string; seq: number };
    wire.request(op as RequestOp, body as never).catch(() => undefined);
    expect(seq).toBeGreaterThan(0);
    expect(decode(socket.sent.at(-1) as Uint8Array)).toEqual({ op, seq: 1, ...body });
    wire.close();
  });

  it("acknowledges pushes as the golden file has it", async () => {
    const { socket, wire } = await live();
    wire.ack("coffee.7.610");
    expect(decode(socket.sent.at(-1) as Uint8Array)).toEqual(decode(bytes("ack")));
  });

  it.each(serverFrames.filter((name) => !["welcome", "bye", "error"].includes(name)))("hands over %s as its twin says", async (name) => {
    const { socket, wire } = await live();
    const seen: ServerFrame[] = [];
    wire.on(name as ServerOp, (frame) => seen.push(frame as ServerFrame));
    socket.say(bytes(name));
    expect(seen).toHaveLength(1);
    expect(jsonable(seen[0])).toMatchObject(twin(name));
  });

  it("rejects what an error answers, and stops where bye says so", async () => {
    const { socket, wire } = await live();
    const asked = [1, 2, 3].map(() => wire.request("ping", {}).then(() => "answered").catch((error: { code: string }) => error.code)); // biome-ignore format: one line
    socket.say(bytes("error")); // of seq 3
    expect(await asked[2]).toBe("invalid");
    socket.say(bytes("bye"));
    socket.onclose?.({ code: 4100, reason: "" });
    expect(wire.state).toMatchObject({ kind: "lost", reason: "this gateway is going away: reconnect" });
  });
});
