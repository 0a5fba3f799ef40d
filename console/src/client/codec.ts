/** Bytes to frames and back. Owns msgpack and the byte columns; knows nothing of sockets. Offers and stores are completed with their defaults here, once. */
import { decode, encode } from "@msgpack/msgpack";
import type { Offer, ServerFrame, Store } from "./frames";

/** Fields the server leaves out where they hold their default (msgspec `omit_defaults`). */
export function completeOffer(offer: Partial<Offer> & Pick<Offer, "id" | "unit_id" | "title" | "audience">): Offer {
  return { text: "", starts_tick: 0, ends_tick: 2 ** 53, cooldown_ticks: 6000, cap: 1, flash: false, ...offer };
}

function complete(frame: ServerFrame): ServerFrame {
  switch (frame.op) {
    case "offer_list":
      return { ...frame, offers: frame.offers.map(completeOffer) };
    case "offer_state":
      return { ...frame, offer: completeOffer(frame.offer) };
    case "stores":
    case "walked_in":
      return { ...frame, stores: frame.stores.map((store): Store => ({ ...store, offers: store.offers ?? [] })) };
    default:
      return frame;
  }
}

export function encodeFrame(frame: { op: string; [field: string]: unknown }): Uint8Array<ArrayBuffer> {
  return encode(frame, { ignoreUndefined: true }) as Uint8Array<ArrayBuffer>;
}

/** One message: a frame or an array of frames. Throws TypeError where it is neither; frames without `op` are refused, unknown ones pass (they are ignored later). */
export function decodeMessage(data: ArrayBuffer | Uint8Array): ServerFrame[] {
  const value: unknown = decode(data);
  const frames = Array.isArray(value) ? value : [value];
  for (const frame of frames) {
    if (typeof frame !== "object" || frame === null || typeof (frame as { op?: unknown }).op !== "string") {
      throw new TypeError("a message from the gateway is a frame with `op`, or an array of such frames");
    }
  }
  return (frames as ServerFrame[]).map(complete);
}

function aligned(bytes: Uint8Array, width: number): ArrayBuffer {
  if (bytes.byteLength % width !== 0) throw new RangeError(`a column of ${bytes.byteLength} bytes is not a multiple of ${width}`);
  return bytes.slice().buffer as ArrayBuffer;
}
/** (n,) u4. Browsers run on little-endian machines, as the columns are. */
export const u4 = (bytes: Uint8Array): Uint32Array => new Uint32Array(aligned(bytes, 4));
export const u2 = (bytes: Uint8Array): Uint16Array => new Uint16Array(aligned(bytes, 2));
export const f4 = (bytes: Uint8Array): Float32Array => new Float32Array(aligned(bytes, 4));
