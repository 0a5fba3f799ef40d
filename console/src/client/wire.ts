/**
 * The client of the gateway: one connection kept alive, requests with answers, topics, pushes.
 *
 * Owns: hello and resume, heartbeats, reconnection with back-off as Bye and close codes ask, sending unanswered requests again under the same `seq`
 * (the server gives the pair (client, seq) one effect), de-duplication of pushes by id, acknowledgements. Knows nothing of the views, the DOM or storage.
 * Limits: MAX_PENDING requests unanswered (more are refused), REQUEST_S seconds for an answer unless more are given, 2048 push ids remembered.
 */
import { asTold, backoff, patience, verdictOf } from "./backoff";
import { decodeMessage, encodeFrame } from "./codec";
import {
  type Answer,
  type FrameOf,
  type Hello,
  MAX_BATCH,
  type Place,
  type Policy,
  type Push,
  type RequestBody,
  type RequestOp,
  type ServerFrame,
  type ServerOp,
  SUBPROTOCOL,
  type Test,
  type Welcome,
} from "./frames";
import { Seen } from "./seen";

export const MAX_PENDING = 64;
export const REQUEST_S = 15;

/** The part of WebSocket that the wire uses, so that tests can stand in for it. */
export type SocketLike = {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
};

export type Surroundings = {
  socket: (url: string, protocol: string) => SocketLike;
  now: () => number; // milliseconds, monotonic
  later: (run: () => void, ms: number) => number;
  cancel: (timer: number) => void;
  random: () => number;
};

export const browser: Surroundings = {
  socket: (url, protocol) => new WebSocket(url, protocol) as unknown as SocketLike,
  now: () => performance.now(),
  later: (run, ms) => setTimeout(run, ms) as unknown as number,
  cancel: (timer) => clearTimeout(timer),
  random: Math.random,
};

/** `live`: frames flow. `lost`: not connected, trying again. `stopped`: not connected and there is no use in trying; `code` and `message` say why. */
export type WireState =
  | { kind: "connecting" }
  | { kind: "live"; welcome: Welcome }
  | { kind: "lost"; since: number; retryAt: number; reason: string }
  | { kind: "stopped"; code: string; message: string };

export type Options = {
  url: string;
  client: string;
  venue: string;
  /** A token to present, or undefined to come as a guest. Asked at each connection; `refused` says that the last one was turned down. */
  token: (refused: boolean) => Promise<string | undefined>;
  guestOf?: string;
  resume?: Place;
  /** Called with each new state. */
  onState: (state: WireState) => void;
  /** Called with each new place among the pushes, and with the guest's token: what a reload needs to go on as the same person. */
  onPlace?: (place: Place) => void;
  /** What came on this topic while away cannot be had: ask for its state anew. */
  onMissed?: (topic: string) => void;
  onToken?: (token: string) => void;
  surroundings?: Surroundings;
};

export class RequestError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly retryable: boolean,
  ) {
    super(message);
  }
}

type Pending = {
  bytes: Uint8Array<ArrayBuffer>;
  resolve: (frame: ServerFrame) => void;
  reject: (error: RequestError) => void;
  timer: number;
  again: boolean;
};
type Handler = (frame: ServerFrame) => void;
/** How a topic is wanted. */
type Wish = { rateHz?: number; where?: Test[]; policy?: Policy };

export class Wire {
  readonly #o: Options;
  readonly #s: Surroundings;
  readonly #handlers = new Map<ServerOp, Set<Handler>>();
  readonly #pending = new Map<number, Pending>();
  readonly #topics = new Map<string, Wish>();
  readonly #watched = new Set<string>();
  /** Where each durable topic is: after a reconnection it goes on from there. */
  readonly #places = new Map<string, Place>();
  readonly #seen = new Seen();
  #socket: SocketLike | undefined;
  #seq = 0;
  #attempt = 0;
  #heard = 0;
  #lastHeard = 0;
  #place: Place | undefined;
  #bye: FrameOf<"bye"> | undefined;
  #refused = false;
  #refusals = 0;
  #lostSince = 0;
  #timer = 0;
  #beat = 0;
  #acks: string[] = [];
  #state: WireState = { kind: "connecting" };
  #closed = false;
  #messageBytes = 16 * 1024;

  constructor(options: Options) {
    this.#o = options;
    this.#s = options.surroundings ?? browser;
    this.#place = options.resume;
    void this.#connect();
  }

  get state(): WireState {
    return this.#state;
  }

  /** The largest message that the server takes of us, as the last welcome said; before the first, what it takes of anybody. */
  get messageBytes(): number {
    return this.#messageBytes;
  }

  /** Milliseconds (of `now`) when the server was last heard; 0 before the first frame. */
  get lastHeard(): number {
    return this.#lastHeard;
  }

  /** Call `handler` for every frame of a kind; returns how to stop. Pushes come once each, after de-duplication. */
  on<Op extends ServerOp>(op: Op, handler: (frame: FrameOf<Op>) => void): () => void {
    const set = this.#handlers.get(op) ?? new Set();
    this.#handlers.set(op, set);
    set.add(handler as Handler);
    return () => set.delete(handler as Handler);
  }

  /** Send a request and wait `waitS` for its answer. Unanswered ones are sent again after a reconnection, under the same seq. Rejects with RequestError. */
  request<Op extends RequestOp>(op: Op, body: RequestBody<Op>, waitS = REQUEST_S): Promise<Answer<Op>> {
    return this.#ask(op, body, true, waitS) as Promise<Answer<Op>>;
  }

  /** Send what only matters now (a position): dropped where there is no connection. Not answered. */
  tell<Op extends RequestOp>(op: Op, body: RequestBody<Op>): void {
    if (this.#state.kind === "live") this.#write(encodeFrame({ op, seq: ++this.#seq, ...body }));
  }

  /** Want a topic, now and after every reconnection, until the returned function is called. */
  subscribe(topic: string, rateHz?: number, wish: Omit<Wish, "rateHz"> = {}): () => void {
    this.#topics.set(topic, { ...wish, rateHz });
    if (this.#state.kind === "live") this.#subscribe(topic, { ...wish, rateHz });
    return () => {
      if (!this.#topics.delete(topic)) return;
      this.#watched.delete(topic);
      this.#places.delete(topic);
      if (this.#state.kind === "live") this.#ask("unsubscribe", { topic }, false).catch(() => undefined);
    };
  }

  /** Who else reads a topic that is wanted; with `watch`, `members_changed` comes from then on, after a reconnection too (ask again then for who is there). */
  members(topic: string, watch = false): Promise<Answer<"get_members">> {
    if (watch) this.#watched.add(topic);
    else this.#watched.delete(topic);
    return this.request("get_members", { topic, watch });
  }

  /** The push is on the user's screen: say so. Kept over a lost connection (MAX_BATCH at most), sent in batches. */
  ack(pushId: string): void {
    if (this.#acks.length < MAX_BATCH) this.#acks.push(pushId);
    this.#flushAcks();
  }

  /** Try at once instead of waiting for the back-off, also after a stop. */
  retry(): void {
    if (this.#state.kind === "live" || this.#closed || this.#socket !== undefined) return;
    this.#s.cancel(this.#timer);
    this.#attempt = 0;
    this.#refusals = 0;
    this.#refused = false;
    void this.#connect();
  }

  /** Leave and say hello again: there is another token to present. */
  renew(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(1000, "renew");
    this.#s.cancel(this.#beat);
    this.#become({ kind: "connecting" });
    this.retry();
  }

  close(): void {
    this.#closed = true;
    this.#s.cancel(this.#timer);
    this.#s.cancel(this.#beat);
    for (const seq of [...this.#pending.keys()]) this.#fail(seq, new RequestError("closed", "the view was closed", false));
    this.#socket?.close(1000, "bye");
    this.#socket = undefined;
  }

  // --- connection

  #become(state: WireState): void {
    this.#state = state;
    this.#o.onState(state);
  }

  async #connect(): Promise<void> {
    if (this.#closed) return;
    if (this.#state.kind === "stopped") this.#become({ kind: "connecting" });
    let token: string | undefined;
    try {
      token = await this.#o.token(this.#refused);
    } catch (error) {
      if (error instanceof RequestError && !error.retryable) this.#become({ kind: "stopped", code: error.code, message: error.message });
      else this.#again(error instanceof Error ? error.message : String(error));
      return;
    }
    if (this.#closed) return;
    this.#refused = false;
    this.#bye = undefined;
    const socket = this.#s.socket(this.#o.url, SUBPROTOCOL);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const hurry = this.#s.later(() => {
      if (this.#socket === socket && this.#state.kind !== "live") this.#drop(socket, 4100, "no welcome in time");
    }, patience(this.#attempt) * 1000);
    socket.onopen = () => {
      const hello: Hello = { op: "hello", client: this.#o.client, venue: this.#o.venue };
      if (token !== undefined) hello.token = token;
      else if (this.#o.guestOf !== undefined) hello.guest_of = this.#o.guestOf;
      if (this.#place !== undefined) hello.resume = this.#place;
      socket.send(encodeFrame(hello));
    };
    socket.onmessage = (event) => {
      if (this.#socket === socket) this.#receive(event.data);
    };
    socket.onclose = (event) => {
      this.#s.cancel(hurry);
      if (this.#socket === socket) this.#lost(event.code, event.reason);
    };
    socket.onerror = null;
  }

  /** Close a socket that may never answer, and go on without waiting for it. */
  #drop(socket: SocketLike, code: number, reason: string): void {
    socket.onclose = null;
    socket.close(4000, "dropped");
    this.#lost(code, reason);
  }

  #lost(code: number, reason: string): void {
    this.#socket = undefined;
    this.#s.cancel(this.#beat);
    if (this.#closed) return;
    const verdict = verdictOf(code);
    const said = this.#bye;
    const why = said?.message || reason || "the connection was lost";
    if (verdict === "new_token") {
      this.#refused = true;
      this.#refusals += 1;
    }
    // A token can be refused once and replaced; a second refusal in a row means that the replacement is no better.
    const hopeless = verdict === "new_token" ? this.#refusals > 1 : said !== undefined ? !said.reconnect : verdict === "give_up";
    if (hopeless) {
      for (const seq of [...this.#pending.keys()]) this.#fail(seq, new RequestError(said?.code ?? "closed", why, false));
      this.#become({ kind: "stopped", code: said?.code ?? `close_${code}`, message: why });
      return;
    }
    this.#again(why, said?.retry_after_s);
  }

  #again(reason: string, toldS = 0): void {
    const wait = Math.max(asTold(toldS, this.#s.random), backoff(this.#attempt, this.#s.random)) * 1000;
    this.#attempt += 1;
    if (this.#state.kind !== "lost") this.#lostSince = this.#s.now();
    this.#become({ kind: "lost", since: this.#lostSince, retryAt: this.#s.now() + wait, reason });
    this.#s.cancel(this.#timer);
    this.#timer = this.#s.later(() => void this.#connect(), wait);
  }

  #welcome(welcome: Welcome): void {
    this.#messageBytes = welcome.limits.message_bytes;
    this.#attempt = 0;
    this.#refusals = 0;
    if (welcome.token !== undefined) this.#o.onToken?.(welcome.token);
    this.#become({ kind: "live", welcome });
    this.#keepAlive(welcome.heartbeat_s);
    const waiting = [...this.#pending];
    for (const [topic, wish] of this.#topics) this.#subscribe(topic, wish);
    for (const topic of this.#watched) this.#ask("get_members", { topic, watch: true }, false).catch(() => undefined);
    for (const [seq, pending] of waiting) {
      if (pending.again) this.#write(pending.bytes);
      else this.#fail(seq, new RequestError("unavailable", "the connection was lost before the answer", true));
    }
    this.#flushAcks();
  }

  #keepAlive(heartbeatS: number): void {
    this.#s.cancel(this.#beat);
    const heardBefore = this.#heard;
    this.#beat = this.#s.later(() => {
      const socket = this.#socket;
      if (socket === undefined || this.#state.kind !== "live") return;
      if (this.#heard === heardBefore && this.#s.now() - this.#lastHeard > 2.2 * heartbeatS * 1000) {
        this.#drop(socket, 4101, "nothing heard from the gateway");
        return;
      }
      this.#write(encodeFrame({ op: "ping", seq: ++this.#seq }));
      this.#keepAlive(heartbeatS);
    }, Math.max(1, heartbeatS) * 700);
  }

  // --- frames

  #write(bytes: Uint8Array<ArrayBuffer>): void {
    this.#socket?.send(bytes);
  }

  #ask(op: string, body: object, again: boolean, waitS = REQUEST_S): Promise<ServerFrame> {
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new RequestError("limit", `${MAX_PENDING} requests are waiting for an answer; try again in a moment`, true));
    }
    if (this.#state.kind === "stopped") return Promise.reject(new RequestError(this.#state.code, this.#state.message, false));
    const seq = ++this.#seq;
    const bytes = encodeFrame({ op, seq, ...body });
    return new Promise((resolve, reject) => {
      const timer = this.#s.later(
        () => this.#fail(seq, new RequestError("unavailable", `no answer within ${waitS} s; it may still have happened, try again`, true)),
        waitS * 1000,
      );
      this.#pending.set(seq, { bytes, resolve, reject, timer, again });
      if (this.#state.kind === "live") this.#write(bytes);
    });
  }

  #subscribe(topic: string, { rateHz, where, policy }: Wish): void {
    const resume = this.#places.get(topic);
    const body = { topic, rate_hz: rateHz, where, policy, resume }; // what is undefined is not written
    const asked = this.#ask("subscribe", body, false).then((frame) => {
      if (resume !== undefined && frame.op === "subscribed" && frame.resumed !== true) this.#o.onMissed?.(topic);
    });
    asked.catch((error: RequestError) => {
      if (!error.retryable) this.#emit({ op: "error", code: error.code, message: error.message, retryable: false });
    });
  }

  #fail(seq: number, error: RequestError): void {
    const pending = this.#pending.get(seq);
    if (pending === undefined) return;
    this.#pending.delete(seq);
    this.#s.cancel(pending.timer);
    pending.reject(error);
  }

  #flushAcks(): void {
    if (this.#acks.length === 0 || this.#state.kind !== "live") return;
    this.#write(encodeFrame({ op: "ack", pushes: this.#acks }));
    this.#acks = [];
  }

  #receive(data: unknown): void {
    if (!(data instanceof ArrayBuffer)) return;
    this.#heard += 1;
    this.#lastHeard = this.#s.now();
    for (const frame of decodeMessage(data)) this.#frame(frame);
  }

  #frame(frame: ServerFrame): void {
    switch (frame.op) {
      case "welcome":
        this.#welcome(frame);
        return;
      case "bye":
        this.#bye = frame;
        return;
      case "push":
        this.#push(frame);
        return;
      case "error":
        if (frame.seq !== undefined && this.#pending.has(frame.seq)) {
          this.#fail(frame.seq, new RequestError(frame.code, frame.message, frame.retryable ?? false));
        } else this.#emit(frame);
        return;
    }
    this.#keepPlace(frame);
    const seq = "seq" in frame ? frame.seq : undefined;
    const pending = seq === undefined ? undefined : this.#pending.get(seq);
    if (seq !== undefined && pending !== undefined) {
      this.#pending.delete(seq);
      this.#s.cancel(pending.timer);
      pending.resolve(frame);
    }
    this.#emit(frame);
  }

  #keepPlace(frame: ServerFrame): void {
    if (frame.op === "subscribed" && frame.place !== undefined && this.#topics.has(frame.topic)) this.#places.set(frame.topic, frame.place);
    if (frame.op === "offer_state" && frame.place !== undefined) this.#places.set(`venue/${frame.venue}/offers`, frame.place);
    if (frame.op === "parking" && frame.place !== undefined) this.#places.set(`venue/${frame.venue}/parking`, frame.place);
  }

  #push(push: Push): void {
    this.#place = push.place;
    this.#o.onPlace?.(push.place);
    if (this.#seen.first(push.id)) this.#emit(push);
    else this.ack(push.id); // it reached the user before; the acknowledgement was lost
  }

  #emit(frame: ServerFrame): void {
    for (const handler of this.#handlers.get(frame.op) ?? []) handler(frame);
  }
}
