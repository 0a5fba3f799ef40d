/**
 * Meshes of a scene's assets: glTF 2.0 files, read once each, as triangles that can be drawn.
 *
 * Owns the fetching and its limits. What is not a file of its own (buffers elsewhere), too large, or no glTF at all is a failure that names itself: its nodes stay boxes. Textures are not
 * drawn, nor skins, nor morphs: a surface has its material's base colour. The reader (@loaders.gl/gltf) is a chunk of its own.
 */
import { signal } from "@preact/signals";
import { authorised, getJson } from "../http";
import { IDENTITY, localMatrix, type Matrix, times, transformed } from "./pose";

export const MAX_MESHES = 64;
export const MAX_MESH_BYTES = 16 * 1024 * 1024;
/** Of one mesh, and of all that are held. */
export const MAX_VERTICES = 1_000_000;
/** glTF is y up, a venue z up: a quarter about x. */
const Z_UP: Matrix = [1, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0];

/** Triangles in the frame of the node that refers to them: positions and normals (n, 3), colours (n, 4) of 0 to 1, rows of them by threes. */
export type Mesh = { positions: Float32Array; normals: Float32Array; colours: Float32Array; indices: Uint32Array };
/** What a node refers to: the SHA-256 of a glTF file, and the index of a mesh in it; without one the whole file. */
export type MeshName = { asset: string; mesh: number | undefined };
export const meshKey = ({ asset, mesh }: MeshName): string => `${asset}/${mesh ?? ""}`;

/** What a node's properties refer to, if they do. */
export function meshNameOf(get: (key: string) => unknown): MeshName | undefined {
  const [asset, mesh] = [get("asset"), get("mesh")];
  if (typeof asset !== "string" || !/^[0-9a-f]{64}$/.test(asset)) return undefined;
  return { asset, mesh: typeof mesh === "number" && Number.isInteger(mesh) && mesh >= 0 ? mesh : undefined };
}

type Accessor = { value: ArrayLike<number>; count?: number };
type Primitive = {
  mode?: number;
  attributes: Record<string, Accessor | undefined>;
  indices?: Accessor;
  material?: { pbrMetallicRoughness?: { baseColorFactor?: number[] } };
};
type GltfNode = { mesh?: { primitives: Primitive[] }; children?: GltfNode[]; matrix?: number[] } & Record<string, unknown>;
type Gltf = { meshes?: { primitives: Primitive[] }[]; scene?: { nodes?: GltfNode[] }; scenes?: { nodes?: GltfNode[] }[] };

/** The triangles of a .glb or .gltf file. Rejects with RangeError for what cannot be drawn. */
export async function readMesh(bytes: ArrayBuffer, mesh: number | undefined): Promise<Mesh> {
  if (bytes.byteLength > MAX_MESH_BYTES) throw new RangeError(`glTF of ${bytes.byteLength} bytes: at most ${MAX_MESH_BYTES} are drawn`);
  const [{ parse }, { GLTFLoader, postProcessGLTF }] = await Promise.all([import("@loaders.gl/core"), import("@loaders.gl/gltf")]);
  standsAlone(bytes);
  const read = await parse(bytes.slice(0), GLTFLoader, {
    core: { fetch: async (uri: unknown) => inFile(String(uri)) },
    gltf: { loadBuffers: true, loadImages: false, decompressMeshes: false },
  });
  const gltf = postProcessGLTF(read as never) as unknown as Gltf;
  const parts: Part[] = [];
  if (mesh !== undefined) {
    const found = gltf.meshes?.[mesh];
    if (found === undefined) throw new RangeError(`glTF: mesh ${mesh} of ${gltf.meshes?.length ?? 0}`);
    collect(found.primitives, IDENTITY, parts);
  } else {
    const scene = gltf.scene ?? gltf.scenes?.[0];
    const stack = (scene?.nodes ?? []).map((node) => ({ node, above: Z_UP, depth: 0 }));
    for (let one = stack.pop(); one !== undefined; one = stack.pop()) {
      const { node, above, depth } = one;
      if (depth > 100) throw new RangeError("glTF: nodes more than 100 deep, or below themselves");
      const here = times(above, matrixOf(node));
      if (node.mesh) collect(node.mesh.primitives, here, parts);
      for (const child of node.children ?? []) stack.push({ node: child, above: here, depth: depth + 1 });
    }
  }
  return joined(parts);
}

/** Throws RangeError where a file refers to others: nothing is fetched from addresses that a file names. */
function standsAlone(bytes: ArrayBuffer): void {
  const view = new DataView(bytes);
  const binary = bytes.byteLength >= 20 && view.getUint32(0, true) === 0x46546c67;
  const text = new TextDecoder().decode(binary ? new Uint8Array(bytes, 20, Math.min(view.getUint32(12, true), bytes.byteLength - 20)) : bytes);
  let whole: { buffers?: { uri?: unknown }[]; extensionsRequired?: unknown };
  try {
    whole = JSON.parse(text) as typeof whole;
  } catch {
    throw new RangeError("this is no glTF file");
  }
  for (const { uri } of whole.buffers ?? []) {
    if (uri !== undefined && !(typeof uri === "string" && uri.startsWith("data:")))
      throw new RangeError("glTF: its buffers are in other files; use .glb");
  }
  if (Array.isArray(whole.extensionsRequired) && whole.extensionsRequired.length > 0) {
    throw new RangeError(`glTF: needs ${whole.extensionsRequired.join(", ")}, which is not drawn`);
  }
}

/** The bytes of a data: address. Decoded here: the page's policy lets nothing fetch one. */
function inFile(uri: string): Response {
  const comma = uri.indexOf(",");
  if (!uri.startsWith("data:") || !uri.slice(0, comma).endsWith(";base64"))
    throw new RangeError("glTF: a buffer that is neither in the file nor base64");
  return new Response(Uint8Array.from(atob(uri.slice(comma + 1)), (c) => c.charCodeAt(0)));
}

/** glTF writes matrices by columns. */
function matrixOf(node: GltfNode): Matrix {
  const m = node.matrix;
  if (m === undefined) return localMatrix((key) => node[key]);
  return [m[0]!, m[4]!, m[8]!, m[12]!, m[1]!, m[5]!, m[9]!, m[13]!, m[2]!, m[6]!, m[10]!, m[14]!];
}

type Part = { positions: Float32Array; indices: Uint32Array; colour: readonly number[] };
const TRIANGLES = 4;

function collect(primitives: readonly Primitive[], m: Matrix, into: Part[]): void {
  for (const one of primitives) {
    const given = one.attributes.POSITION?.value;
    if (given === undefined || (one.mode ?? TRIANGLES) !== TRIANGLES) continue;
    const count = Math.floor(given.length / 3);
    if (into.reduce((sum, part) => sum + part.positions.length / 3, count) > MAX_VERTICES)
      throw new RangeError(`glTF: over ${MAX_VERTICES} vertices`);
    const positions = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) positions.set(transformed(m, [given[3 * i]!, given[3 * i + 1]!, given[3 * i + 2]!]), 3 * i);
    const indices = one.indices ? Uint32Array.from(one.indices.value) : Uint32Array.from({ length: count }, (_, i) => i);
    if (indices.some((row) => row >= count)) throw new RangeError("glTF: an index beyond its vertices");
    into.push({ positions, indices, colour: one.material?.pbrMetallicRoughness?.baseColorFactor ?? [0.8, 0.8, 0.8, 1] });
  }
}

/** One mesh of all parts; a corner's normal is that of its triangle, so that edges show: each triangle has corners of its own. */
function joined(parts: readonly Part[]): Mesh {
  const corners = parts.reduce((sum, part) => sum + part.indices.length, 0);
  if (corners === 0) throw new RangeError("glTF: no triangles");
  if (corners > 3 * MAX_VERTICES) throw new RangeError(`glTF: over ${MAX_VERTICES} triangles`);
  const out: Mesh = {
    positions: new Float32Array(3 * corners),
    normals: new Float32Array(3 * corners),
    colours: new Float32Array(4 * corners),
    indices: Uint32Array.from({ length: corners }, (_, i) => i),
  };
  let at = 0;
  for (const { positions: p, indices, colour } of parts) {
    for (let i = 0; i + 2 < indices.length; i += 3) {
      const [a, b, c] = [3 * indices[i]!, 3 * indices[i + 1]!, 3 * indices[i + 2]!];
      const u = [p[b]! - p[a]!, p[b + 1]! - p[a + 1]!, p[b + 2]! - p[a + 2]!];
      const v = [p[c]! - p[a]!, p[c + 1]! - p[a + 1]!, p[c + 2]! - p[a + 2]!];
      const n = [u[1]! * v[2]! - u[2]! * v[1]!, u[2]! * v[0]! - u[0]! * v[2]!, u[0]! * v[1]! - u[1]! * v[0]!];
      const length = Math.hypot(...n) || 1;
      for (const corner of [a, b, c]) {
        out.positions.set(p.subarray(corner, corner + 3), 3 * at);
        out.normals.set([n[0]! / length, n[1]! / length, n[2]! / length], 3 * at);
        out.colours.set([colour[0] ?? 1, colour[1] ?? 1, colour[2] ?? 1, colour[3] ?? 1], 4 * at);
        at += 1;
      }
    }
  }
  return out;
}

/** The meshes of one tenant's assets, read as they are wanted: one at a time, MAX_MESHES at most. */
export class MeshShelf {
  readonly meshes = signal<ReadonlyMap<string, Mesh | RangeError>>(new Map());
  readonly #wanted = new Map<string, MeshName>();
  #busy = false;

  constructor(
    readonly tenant: string,
    readonly read: (asset: string) => Promise<ArrayBuffer> = (asset) =>
      getJson(`v1/assets/${asset}`, authorised(tenant), (response) => response.arrayBuffer()),
  ) {}

  /** Have these read; those that are here or failed are passed over. */
  want(names: readonly MeshName[]): void {
    for (const name of names) {
      const key = meshKey(name);
      if (this.meshes.value.has(key) || this.#wanted.has(key) || this.meshes.value.size + this.#wanted.size >= MAX_MESHES) continue;
      this.#wanted.set(key, name);
    }
    void this.#work();
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    let file: { asset: string; bytes: ArrayBuffer } | undefined;
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const [key, { asset, mesh }] = next;
      let found: Mesh | RangeError;
      try {
        if (file?.asset !== asset) file = { asset, bytes: await this.read(asset) };
        found = await readMesh(file.bytes, mesh);
        const held = [...this.meshes.value.values()].reduce((sum, one) => sum + (one instanceof RangeError ? 0 : one.indices.length), 0);
        if (held + found.indices.length > 3 * MAX_VERTICES) found = new RangeError(`over ${MAX_VERTICES} triangles are held already`);
      } catch (error) {
        found = error instanceof RangeError ? error : new RangeError(error instanceof Error ? error.message : String(error));
      }
      this.#wanted.delete(key);
      this.meshes.value = new Map(this.meshes.value).set(key, found);
    }
    this.#busy = false;
  }

  #next(): [string, MeshName] | undefined {
    for (const entry of this.#wanted) return entry;
    return undefined;
  }
}
