import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { asTold, backoff, FIRST_S, LAST_S, patience, verdictOf } from "../src/client/backoff";
import { Seen } from "../src/client/seen";
import { MAX_PENDING, type Options, REQUEST_S, type RequestError, type SocketLike, Wire, type WireState } from "../src/client/wire";

/** A hand-driven world: time moves when told, sockets are recorded. */
class World {
  time = 0;
  timers = new Map<number, { at: number; run: () => void }>();
  next = 1;
  sockets: FakeSocket[] = [];
  surroundings = {
    socket: (): SocketLike => {
      const socket = new FakeSocket();
      this.sockets.push(socket);
      return socket;
    },
    now: () => this.time,
    later: (run: () => void, ms: number) => {
      this.timers.set(this.next, { at: this.time + ms, run });
      return this.next++;
    },
    cancel: (timer: number) => void this.timers.delete(timer),
    random: () => 0.5,
  };
  async advance(ms: number) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(([, t]) => t.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.time = Math.max(this.time, due[1].at);
      this.timers.delete(due[0]);
      due[1].run();
      await settle();
    }
    this.time = end;
  }
  get socket() {
    return this.sockets.at(-1)!;
  }
}
const settle = async () => {
  for (let i = 0; i < 5; i++) await Promise.resolve();
};

type Sent = { op: string; seq?: number; [key: string]: unknown };
class FakeSocket implements SocketLike {
  binaryType = "";
  onopen: SocketLike["onopen"] = null;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  sent: Sent[] = [];
  closed = false;
  send(data: Uint8Array<ArrayBuffer>) {
    this.sent.push(decode(data) as Sent);
  }
  close() {
    this.closed = true;
  }
  open() {
    (this.onopen as (() => void) | null)?.();
  }
  say(...frames: object[]) {
    const data = encode(frames.length === 1 ? frames[0] : frames);
    this.onmessage?.({ data: data.slice().buffer });
  }
  lose(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
  last(op: string) {
    return this.sent.filter((f) => f.op === op).at(-1);
  }
}
const welcome = (more: object = {}) => ({
  op: "welcome",
  session: "s",
  subject: 7,
  tenant: "t",
  role: "guest",
  now_ms: 0,
  heartbeat_s: 10,
  limits: {},
  ...more,
});
const push = (id: string, offset: number) => ({
  op: "push",
  id,
  kind: "NEARBY",
  venue: "v",
  offer: "o",
  unit: "u",
  title: "T",
  text: "",
  tick: 1,
  place: { epoch: 1, offset },
});

async function begin(more: Partial<Options> = {}) {
  const world = new World();
  const states: WireState[] = [];
  const wire = new Wire({
    url: "ws://x",
    client: "c",
    venue: "v",
    token: async () => undefined,
    guestOf: "t",
    onState: (state) => states.push(state),
    surroundings: world.surroundings,
    ...more,
  });
  await settle();
  return { world, wire, states };
}
async function live(more: Partial<Options> = {}) {
  const all = await begin(more);
  all.world.socket.open();
  all.world.socket.say(welcome());
  return all;
}
async function reconnect(world: World) {
  world.socket.lose();
  await world.advance(20_000);
  world.socket.open();
}

describe("hello", () => {
  it("comes as a guest where there is no token, and keeps the token that welcome brings", async () => {
    const kept: string[] = [];
    const { world, wire } = await begin({ onToken: (t) => kept.push(t) });
    world.socket.open();
    expect(world.socket.sent).toEqual([{ op: "hello", client: "c", venue: "v", guest_of: "t" }]);
    world.socket.say(welcome({ token: "mine" }));
    expect(kept).toEqual(["mine"]);
    expect(wire.state.kind).toBe("live");
  });
  it("never puts the token into the address", async () => {
    const urls: string[] = [];
    const world = new World();
    new Wire({
      url: "ws://x/v1/ws", client: "c", venue: "v", token: async () => "secret", onState: () => undefined,
      surroundings: { ...world.surroundings, socket: (url: string) => (urls.push(url), world.surroundings.socket()) },
    }); // biome-ignore format: short
    await settle();
    world.socket.open();
    expect(urls).toEqual(["ws://x/v1/ws"]);
    expect(world.socket.sent[0]?.token).toBe("secret");
  });
});

describe("a lost connection", () => {
  it("comes back with the last place among the pushes and the topics wanted", async () => {
    const { world, wire } = await live();
    wire.subscribe("venue/v/stats", 1, { where: [{ field: "tick", at_least: 5 }], policy: "keep_latest" });
    const told = wire.members("venue/v/stats", true);
    world.socket.say({ op: "members", seq: world.socket.last("get_members")?.seq, topic: "venue/v/stats", count: 1 });
    expect((await told).count).toBe(1);
    world.socket.say(push("a", 41), push("b", 42));
    await reconnect(world);
    expect(world.socket.last("hello")?.resume).toEqual({ epoch: 1, offset: 42 });
    world.socket.say(welcome({ resumed: true }));
    expect(world.socket.last("subscribe")).toMatchObject({
      topic: "venue/v/stats",
      rate_hz: 1,
      where: [{ field: "tick", at_least: 5 }],
      policy: "keep_latest",
    });
    expect(world.socket.last("get_members")).toMatchObject({ topic: "venue/v/stats", watch: true });
  });
  it("goes on in a durable topic where it was, and says what cannot be had", async () => {
    const missed: string[] = [];
    const { world, wire } = await live({ onMissed: (topic) => missed.push(topic) });
    wire.subscribe("venue/v/offers");
    const first = world.socket.last("subscribe");
    expect(first?.resume).toBeUndefined();
    world.socket.say({ op: "subscribed", seq: first?.seq, topic: "venue/v/offers", place: { epoch: 1, offset: 4 } });
    world.socket.say({ op: "offer_state", venue: "v", offer: {}, ended: false, place: { epoch: 1, offset: 5 } });
    for (const resumed of [true, undefined]) {
      await reconnect(world);
      world.socket.say(welcome());
      const again = world.socket.last("subscribe");
      expect(again?.resume).toEqual({ epoch: 1, offset: 5 });
      world.socket.say({ op: "subscribed", seq: again?.seq, topic: "venue/v/offers", place: { epoch: 1, offset: 5 }, resumed });
      await settle();
    }
    expect(missed).toEqual(["venue/v/offers"]);
  });
  it("sends unanswered requests again under the same seq", async () => {
    const { world, wire } = await live();
    const answer = wire.request("balance", {});
    const first = world.socket.last("balance");
    world.socket.lose();
    await world.advance(1000);
    world.socket.open();
    world.socket.say(welcome());
    expect(world.socket.last("balance")).toEqual(first);
    world.socket.say({ op: "balance_is", seq: first?.seq, balances: { EUR: 5 } });
    await expect(answer).resolves.toMatchObject({ balances: { EUR: 5 } });
  });
  it("drops positions meanwhile: only the newest matters", async () => {
    const { world, wire } = await live();
    world.socket.lose();
    wire.tell("move", { venue: "v", level: 0, x: 1, y: 1 });
    await world.advance(1000);
    world.socket.open();
    world.socket.say(welcome());
    expect(world.socket.last("move")).toBeUndefined();
  });
  it("is noticed when the server falls silent", async () => {
    const { world, wire } = await live();
    await world.advance(40_000);
    expect(world.sockets[0]?.closed).toBe(true);
    expect(wire.state.kind).not.toBe("live");
  });
  it("waits as long as Bye asks, and a little by chance", async () => {
    const { world } = await live();
    world.socket.say({ op: "bye", code: "unavailable", message: "going away", reconnect: true, retry_after_s: 9 });
    world.socket.lose(4100);
    await world.advance(9_400);
    expect(world.sockets).toHaveLength(1);
    await world.advance(200);
    expect(world.sockets).toHaveLength(2);
  });
});

describe("a connection that the server does not want", () => {
  it.each([4000, 4001, 4002, 4004])("stops after close code %i", async (code) => {
    const { world, wire } = await live();
    world.socket.lose(code, "no");
    await world.advance(60_000);
    expect(wire.state).toMatchObject({ kind: "stopped", message: "no" });
    expect(world.sockets).toHaveLength(1);
    await expect(wire.request("balance", {})).rejects.toMatchObject({ retryable: false });
  });
  it.each([4003, 4200])("asks for a new token after %i, once in a row", async (code) => {
    const asked: boolean[] = [];
    const { world, wire } = await begin({
      token: async (refused) => {
        asked.push(refused);
        return "t";
      },
    });
    world.socket.lose(code);
    await world.advance(2_000);
    expect(asked).toEqual([false, true]);
    world.socket.lose(code);
    await world.advance(60_000);
    expect(wire.state.kind).toBe("stopped");
    expect(world.sockets).toHaveLength(2);
  });
});

describe("pushes", () => {
  it("are shown once, and acknowledged again when they come again", async () => {
    const { world, wire } = await live();
    const shown: string[] = [];
    wire.on("push", (p) => {
      shown.push(p.id);
      wire.ack(p.id);
    });
    world.socket.say(push("a", 1), push("a", 1), push("b", 2));
    expect(shown).toEqual(["a", "b"]);
    expect(world.socket.sent.filter((f) => f.op === "ack").flatMap((f) => f.pushes)).toEqual(["a", "a", "b"]);
  });
  it("acknowledged while away are told after the reconnection", async () => {
    const { world, wire } = await live();
    world.socket.lose();
    wire.ack("a");
    await world.advance(1000);
    world.socket.open();
    world.socket.say(welcome());
    expect(world.socket.last("ack")).toEqual({ op: "ack", pushes: ["a"] });
  });
});

describe("requests", () => {
  it("reject with the server's code", async () => {
    const { world, wire } = await live();
    const answer = wire.request("walk_in", { venue: "v", location: "nowhere" });
    world.socket.say({ op: "error", seq: world.socket.last("walk_in")?.seq, code: "not_found", message: "no such entrance" });
    await expect(answer).rejects.toMatchObject({ code: "not_found", message: "no such entrance", retryable: false });
  });
  it("are refused beyond the limit of unanswered ones", async () => {
    const { wire } = await live();
    for (let i = 0; i < MAX_PENDING; i++) wire.request("balance", {}).catch(() => undefined);
    await expect(wire.request("balance", {})).rejects.toMatchObject({ code: "limit", retryable: true });
  });
  it("give up waiting as retryable: the outcome is unknown", async () => {
    const { world, wire } = await live();
    const failed = wire.request("balance", {}).catch((error: RequestError) => error);
    for (let s = 0; s <= REQUEST_S; s++) {
      world.socket.say({ op: "pong", seq: 0, now_ms: 0 });
      await world.advance(1000);
    }
    await expect(failed).resolves.toMatchObject({ code: "unavailable", retryable: true });
  });
});

describe("back-off", () => {
  it("doubles up to its bound, with jitter above one half", () => {
    expect(backoff(0, () => 1)).toBe(FIRST_S);
    expect(backoff(3, () => 0)).toBe((FIRST_S * 8) / 2);
    expect(backoff(50, () => 1)).toBe(LAST_S);
  });
  it("is never shorter than told, and at most a second longer", () => {
    expect([0, 0.2, 9].map((told) => asTold(told, () => 0))).toEqual([0, 0.2, 9]);
    expect([0, 0.2, 9].map((told) => asTold(told, () => 1))).toEqual([0, 0.4, 10]);
  });
  it("has more patience with each attempt in a row", () => {
    expect([0, 1, 2, 3, 99].map(patience)).toEqual([10, 20, 40, 60, 60]);
  });
  it.each([
    [1006, "reconnect"], [4100, "reconnect"], [4106, "reconnect"], [4000, "give_up"], [4004, "give_up"], [1009, "give_up"], [4003, "new_token"], [4200, "new_token"],
  ])("close code %i means %s", (code, verdict) => expect(verdictOf(code)).toBe(verdict)); // biome-ignore format: table
});

describe("the memory of ids", () => {
  it("is bounded and forgets the oldest", () => {
    const seen = new Seen(3);
    for (const id of ["a", "b", "c", "d"]) expect(seen.first(id)).toBe(true);
    expect(seen.size).toBe(3);
    expect(seen.first("d")).toBe(false);
    expect(seen.first("a")).toBe(true);
  });
});

describe("another token", () => {
  it("is presented on a fresh connection, and the old one is let go", async () => {
    let token = "shopper";
    const { world, wire } = await live({ token: async () => token });
    token = "operator";
    wire.renew();
    await settle();
    expect(world.sockets[0]?.closed).toBe(true);
    world.socket.open();
    world.socket.say(welcome({ role: "operator" }));
    expect(world.socket.last("hello")?.token).toBe("operator");
    expect(wire.state).toMatchObject({ kind: "live", welcome: { role: "operator" } });
  });
});
