// A client of esplanade.v1 in another language, written from docs/protocol.md alone. It walks in, moves past a shop, gets a push, acks it, pays (twice with one
// key), loses its connection and resumes. It says each step as a line of JSON on stdout; before it pays it waits for a line on stdin.
//
//   node client.mjs URL TENANT VENUE LOCATION LEVEL X Y UNIT AMOUNT CURRENCY [json]
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { decode, encode } from "@msgpack/msgpack";
import WebSocket from "ws";

const [url, tenant, venue, location, level, x, y, unit, amount, currency, format = "msgpack"] = process.argv.slice(2);
const json = format === "json";
const client = `node-${randomBytes(8).toString("hex")}`;
const say = (step, fields = {}) => console.log(JSON.stringify({ step, ...fields }));
const fail = (why) => {
  say("failed", { why });
  process.exit(1);
};
setTimeout(() => fail("not done within 60 s"), 60_000).unref();

let seq = 0;

class Wire {
  constructor(hello) {
    this.answers = new Map(); // seq -> resolve
    this.events = [];
    this.waiters = [];
    this.socket = new WebSocket(url, `esplanade.v1.${format}`, { perMessageDeflate: false });
    this.socket.binaryType = "arraybuffer";
    this.socket.on("open", () => this.send({ op: "hello", client, ...hello }));
    this.socket.on("error", (error) => fail(`socket: ${error.message}`));
    this.socket.on("message", (data) => {
      const message = json ? JSON.parse(data.toString()) : decode(new Uint8Array(data));
      for (const frame of Array.isArray(message) ? message : [message]) this.receive(frame);
    });
    this.closed = new Promise((resolve) => this.socket.on("close", resolve));
  }

  send(frame) {
    this.socket.send(json ? JSON.stringify(frame) : encode(frame));
  }

  receive(frame) {
    if (frame.op === "bye") fail(`bye: ${frame.code}: ${frame.message}`);
    const answer = this.answers.get(frame.seq);
    if (answer !== undefined) {
      this.answers.delete(frame.seq);
      answer(frame);
      return;
    }
    const i = this.waiters.findIndex((waiter) => waiter.op === frame.op);
    if (i >= 0) this.waiters.splice(i, 1)[0].resolve(frame);
    else this.events.push(frame);
  }

  ask(frame) {
    const mine = ++seq;
    return new Promise((resolve) => {
      this.answers.set(mine, resolve);
      this.send({ ...frame, seq: mine });
    });
  }

  async must(frame, op) {
    const reply = await this.ask(frame);
    if (reply.op !== op) fail(`${frame.op} was answered with ${JSON.stringify(reply)}`);
    return reply;
  }

  event(op) {
    const i = this.events.findIndex((frame) => frame.op === op);
    if (i >= 0) return Promise.resolve(this.events.splice(i, 1)[0]);
    return new Promise((resolve) => this.waiters.push({ op, resolve }));
  }
}

let wire = new Wire({ guest_of: tenant });
const welcome = await wire.event("welcome");
say("welcome", { subject: welcome.subject, role: welcome.role, token: typeof welcome.token });

const walked = await wire.must({ op: "walk_in", venue, location }, "walked_in");
say("walked_in", { name: walked.venue_name, level: walked.level, stores: walked.stores.length });

const push$ = wire.event("push");
await wire.must({ op: "move", venue, level: Number(level), x: Number(x), y: Number(y), ack: true }, "taken");
const push = await push$;
if (push.id !== `${push.offer}.${welcome.subject}.${push.tick}`) fail(`push id ${push.id}`);
say("push", { id: push.id, kind: push.kind, title: push.title });
wire.send({ op: "ack", pushes: [push.id] });

const line = createInterface({ input: process.stdin });
await new Promise((resolve) => line.once("line", resolve));
line.close();

const key = randomBytes(16);
const pay = { op: "pay", venue, key: json ? key.toString("base64") : key, unit, amount: Number(amount), currency };
const paid = await wire.must(pay, "paid");
if (!Buffer.from(paid.key, json ? "base64" : undefined).equals(key)) fail("paid another key");
const again = await wire.must(pay, "paid");
if (again.balance !== paid.balance) fail(`the same payment twice: balance ${paid.balance}, then ${again.balance}`);
const other = await wire.ask({ ...pay, amount: Number(amount) + 1 });
if (other.op !== "error" || !other.code.startsWith("exists_with_different")) fail(`the same key with another amount: ${JSON.stringify(other)}`);
const balance = await wire.must({ op: "balance" }, "balance_is");
say("paid", { balance: paid.balance, balances: balance.balances });

const refused = await wire.ask({ op: "get_books" });
say("refused", { code: refused.code, retryable: refused.retryable ?? false });

wire.socket.terminate();
await wire.closed;
wire = new Wire({ token: welcome.token, venue, resume: push.place });
const back = await wire.event("welcome");
wire.send([{ op: "ping", seq: ++seq }, { op: "ping", seq: ++seq }]);
const pongs = [await wire.event("pong"), await wire.event("pong")];
const repeated = wire.events.filter((frame) => frame.op === "push" && frame.id === push.id).length;
say("resumed", { subject: back.subject, resumed: back.resumed ?? false, repeated });
say("pongs", { seqs: pongs.map((pong) => pong.seq) });
await wire.must({ op: "leave", venue }, "taken");
wire.socket.close(1000);
await wire.closed;
say("done");
process.exit(0);
