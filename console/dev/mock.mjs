/**
 * A stand-in for the gateway, for work on the looks alone: `node dev/mock.mjs VENUE.json [PEOPLE] [PORT]`, then open the printed address (it serves dist/).
 * People drift at random and walk through walls. Never part of the built console, and of no test: those use the real server.
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { decode, encode } from "@msgpack/msgpack";
import { WebSocketServer } from "ws";

const [file, peopleArg = "2500", portArg = "8787"] = process.argv.slice(2);
const people = Number(peopleArg);
const doc = { occupants: [], openings: [], ...JSON.parse(await readFile(file, "utf8")) };
const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const tenant = "demo";
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".json": "application/json" };

const inRing = (ring, x, y) => {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i];
    const [xj, yj] = ring[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
};
const covers = (shape, x, y) => shape.some((p) => inRing(p[0], x, y) && !p.slice(1).some((h) => inRing(h, x, y)));
const levels = doc.levels.map((level) => {
  const xs = level.outline.flatMap((p) => p[0].map((q) => q[0]));
  const ys = level.outline.flatMap((p) => p[0].map((q) => q[1]));
  return {
    level,
    x0: Math.min(...xs),
    x1: Math.max(...xs),
    y0: Math.min(...ys),
    y1: Math.max(...ys),
    units: doc.units.filter((u) => u.level_id === level.id),
  };
});
const blocked = new Set(["nonpublic", "structure", "opentobelow", "stairs", "escalator", "elevator", "parking", "unspecified"]);
const free = (l, x, y) => covers(l.level.outline, x, y) && !l.units.some((u) => blocked.has(u.category) && covers(u.polygon, x, y));
const shopLevels = levels.map((l, i) => [l.units.filter((u) => u.category === "room").length + 0.2, i]);
const total = shopLevels.reduce((a, [n]) => a + n, 0);
const spots = [];
for (const [n, i] of shopLevels) {
  const l = levels[i];
  for (let k = 0; k < (n / total) * people; ) {
    const x = l.x0 + Math.random() * (l.x1 - l.x0);
    const y = l.y0 + Math.random() * (l.y1 - l.y0);
    const pull = Math.exp(-Math.hypot(x - (l.x0 + l.x1) / 2, y - (l.y0 + l.y1) / 2) / 60);
    const shop = l.units.some((u) => u.category === "room" && covers(u.polygon, x, y));
    if (Math.random() > (shop ? 0.35 : 0.3 + pull)) continue;
    if (!free(l, x, y)) continue;
    spots.push({ level: i, x, y, a: Math.random() * 7 });
    k++;
  }
}
let tick = 3000;
let pushes = 0;
let payments = 0;
const offers = [];
const shops = doc.occupants.filter((o) => doc.units.find((u) => u.id === o.unit_id)?.category === "room");
for (let i = 0; i < 5; i++) {
  const shop = shops[(i * 37) % shops.length];
  offers.push({
    id: `o${i}`,
    unit_id: shop.unit_id,
    title: `${shop.name}: two for one`,
    text: "Until noon.",
    audience: { type: "within", radius_m: 12 },
    starts_tick: 600 + i * 900,
    ends_tick: 4000 + i * 600,
    flash: false,
  });
}
offers.push({
  id: "flash",
  unit_id: shops[3].unit_id,
  title: `Flash sale at ${shops[3].name}`,
  text: "Half price for ten minutes.",
  audience: { type: "inside" },
  starts_tick: 3100,
  ends_tick: 5200,
  flash: true,
});

setInterval(() => {
  tick += 1;
  if (tick === 3100) pushes += people;
  if (tick % 5) return;
  for (const s of spots) {
    s.a += (Math.random() - 0.5) * 0.9;
    const x = s.x + Math.cos(s.a) * 0.6;
    const y = s.y + Math.sin(s.a) * 0.6;
    if (free(levels[s.level], x, y)) Object.assign(s, { x, y });
    else s.a += 2;
  }
}, 100);

const bytes = (array) => new Uint8Array(array.buffer);
function dots(level) {
  const here = spots.map((s, i) => [s, i]).filter(([s]) => s.level === level);
  return {
    op: "dots",
    venue: doc.id,
    level,
    tick,
    pseudonym: bytes(Uint32Array.from(here, ([, i]) => i + 1)),
    x: bytes(Float32Array.from(here, ([s]) => s.x)),
    y: bytes(Float32Array.from(here, ([s]) => s.y)),
    radius: Uint8Array.from(here, ([, i]) => (i % 5 === 0 ? 0 : 20 + ((i * 37) % 70))),
  };
}
function density(level) {
  const { x0, y0, x1, y1 } = levels[level];
  const cell = 2;
  const cols = Math.ceil((x1 - x0) / cell);
  const rows = Math.ceil((y1 - y0) / cell);
  const count = new Uint16Array(cols * rows);
  for (const s of spots)
    if (s.level === level) count[Math.min(rows - 1, Math.floor((s.y - y0) / cell)) * cols + Math.min(cols - 1, Math.floor((s.x - x0) / cell))] += 1;
  return { op: "density", venue: doc.id, level, tick, x0_m: x0, y0_m: y0, cell_m: cell, cols, rows, count: bytes(count) };
}
function stats() {
  pushes += Math.round(Math.random() * 30);
  payments += Math.round(8 + Math.random() * 6);
  const zones = {};
  for (const u of doc.units.filter((unit) => unit.category === "room").slice(0, 50)) {
    const n = spots.filter((s) => levels[s.level].level.id === u.level_id && covers(u.polygon, s.x, s.y)).length;
    if (n) zones[u.id] = n;
  }
  return {
    op: "stats",
    venue: doc.id,
    tick,
    inside: levels.map((_, i) => spots.filter((s) => s.level === i).length),
    pushes,
    entries: 4812,
    exits: 2203,
    dwells: 1204,
    tick_ms: 3 + Math.random() * 2,
    zones,
  };
}
const near = (f) => {
  const id = doc.levels[f.level].id;
  return shops
    .map((o) => [o, doc.units.find((u) => u.id === o.unit_id)])
    .filter(([, u]) => u.level_id === id)
    .map(([o, u]) => {
      const opening = doc.openings.find((p) => p.unit_id === u.id);
      const [x, y] = opening ? [(opening.a[0] + opening.b[0]) / 2, (opening.a[1] + opening.b[1]) / 2] : u.polygon[0][0][0];
      return {
        unit_id: u.id,
        name: o.name,
        category: o.category ?? "shop",
        level: f.level,
        x_m: x,
        y_m: y,
        distance_m: Math.hypot(x - f.x, y - f.y),
        offers: offers.filter((q) => q.unit_id === u.id).map((q) => q.id),
      };
    })
    .sort((a, b) => a.distance_m - b.distance_m)
    .slice(0, f.k ?? 10);
};

const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://x").pathname;
  const json = (value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (path === "/v1/console")
    return json({ ws_url: `ws://127.0.0.1:${portArg}/v1/ws`, local_sign_in: true, venues: [{ tenant, id: doc.id, name: doc.name, kind: doc.kind }] });
  if (path === "/v1/local/token") return json({ token: "mock" });
  if (path === `/v1/venues/${tenant}/${doc.id}`) return json(doc);
  try {
    const name = normalize(path === "/" ? "/index.html" : path);
    const data = await readFile(join(dist, name));
    response.setHeader("content-type", types[extname(name)] ?? "application/octet-stream").end(data);
  } catch {
    response.writeHead(404).end("{}");
  }
});
let sessions = 0;
new WebSocketServer({ server, handleProtocols: () => "esplanade.v1.msgpack" }).on("connection", (ws) => {
  const topics = new Map();
  const send = (frame) => ws.readyState === 1 && ws.send(encode(frame));
  const timers = [
    setInterval(() => topics.forEach((_, t) => t.includes("/dots/") && send(dots(Number(t.split("/")[3])))), 500),
    setInterval(() => {
      for (const t of topics.keys()) {
        if (t.includes("/density/")) send(density(Number(t.split("/")[3])));
        if (t.endsWith("/stats")) send(stats());
        if (t === "payments") send({ op: "payment_stats", payments, refused: 3, volume: { EUR: payments * 2417 } });
        if (t.endsWith("/clock")) send({ op: "closed", venue: doc.id, tick, epoch: 1, late_rows: 0 });
      }
    }, 1000),
  ];
  ws.on("close", () => timers.forEach(clearInterval));
  ws.on("message", (data) => {
    const f = decode(data);
    const answer = {
      hello: () => ({
        op: "welcome",
        session: "s",
        subject: ++sessions,
        tenant,
        role: f.token ? "operator" : "guest",
        now_ms: Date.now(),
        heartbeat_s: 15,
        limits: { message_bytes: 1e6, frames_per_s: 100, subscriptions: 64 },
        ...(f.token ? {} : { token: "guest" }),
      }),
      ping: () => ({ op: "pong", seq: f.seq, now_ms: Date.now() }),
      subscribe: () => (topics.set(f.topic, f.rate_hz), { op: "subscribed", seq: f.seq, topic: f.topic }),
      unsubscribe: () => (topics.delete(f.topic), { op: "done", seq: f.seq }),
      get_offers: () => ({ op: "offer_list", seq: f.seq, offers }),
      get_clock: () => ({ op: "clock_state", seq: f.seq, tick, epoch: 1, driven: true, late_rows: 0, late_ticks: 0 }),
      get_zone: () => ({
        op: "zone_state",
        seq: f.seq,
        tick,
        inside: stats().zones[f.zone] ?? 0,
        entries: 210,
        exits: 180,
        dwells: 92,
        stayed_s: 51000,
      }),
      balance: () => ({ op: "balance_is", seq: f.seq, balances: { EUR: 12050 } }),
      pay: () => ({ op: "paid", seq: f.seq, key: f.key, balance: 12050 - f.amount }),
      leave: () => ({ op: "done", seq: f.seq }),
      find_stores: () => ({ op: "stores", seq: f.seq, stores: near(f) }),
      create_offer: () => (
        offers.push(f.offer), send({ op: "offer_state", venue: doc.id, offer: f.offer, ended: false }), { op: "done", seq: f.seq }
      ),
      walk_in: () => {
        const e = doc.entrances.find((x) => x.code === f.location);
        if (!e) return { op: "error", seq: f.seq, code: "not_found", message: `location ${f.location}: no entrance of this code` };
        const level = doc.levels.findIndex((l) => l.id === e.level_id);
        setTimeout(
          () =>
            send({
              op: "push",
              id: `flash.1.${tick}`,
              kind: "NEW_OFFER",
              venue: doc.id,
              offer: "flash",
              unit: shops[3].unit_id,
              title: offers.at(-1).title,
              text: "Half price for ten minutes.",
              tick,
              place: { epoch: 1, offset: 1 },
            }),
          2500,
        );
        return {
          op: "walked_in",
          seq: f.seq,
          venue: doc.id,
          venue_name: doc.name,
          level,
          x: e.point[0],
          y: e.point[1],
          stores: near({ level, x: e.point[0], y: e.point[1] }),
        };
      },
    }[f.op]?.();
    if (answer) send(answer);
  });
});
server.listen(Number(portArg), "127.0.0.1", () => console.log(`http://127.0.0.1:${portArg}/`));
