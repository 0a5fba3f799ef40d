/** What the AR screen works out by itself: poses, circles over a level, the pose graph, nodes in space, clouds from files. */
import { describe, expect, it, vi } from "vitest";
import { MAX_MESH_BYTES, type Mesh, MeshShelf, meshKey, meshNameOf, readMesh } from "../src/ar/meshes";
import { circlesOver, graphOf, hexOf, sceneNodes } from "../src/ar/model";
import { readPly, thinned } from "../src/ar/ply";
import { apart, axesOf, boxOf, composed, frustumOf, IDENTITY, judge, localMatrix, rotated, times, transformed } from "../src/ar/pose";
import { lostText, valueText } from "../src/ar/ScenePanel";
import { SceneReplica } from "../src/ar/scene";
import { CREATE, dotOf, type Op, ROOT, SET } from "../src/ar/scene_ops";
import { completeHeld, completeObservation, type Rotation, type Vector } from "../src/client/ar_frames";

const QUARTER: Rotation = [0, 0, Math.SQRT1_2, Math.SQRT1_2];
const close = (found: readonly number[], wanted: readonly number[]) => {
  expect(found).toHaveLength(wanted.length);
  for (const [i, v] of wanted.entries()) expect(found[i]).toBeCloseTo(v, 9);
};

describe("poses", () => {
  it("turn, follow one another and are told apart", () => {
    close(rotated(QUARTER, [1, 0, 5]), [0, 1, 5]);
    const there = composed({ position_m: [10, 0, 0], rotation: QUARTER }, { position_m: [2, 0, 1], rotation: QUARTER });
    close(there.position_m, [10, 2, 1]);
    close([apart(there, { position_m: [10, 2, 4], rotation: QUARTER }).metres], [3]);
    close([apart(there, { position_m: [10, 2, 4], rotation: [0, 0, 0, -1] }).radians], [Math.PI]);
  });
  it("have axes, and a camera looks along its z with its upper side marked", () => {
    close(axesOf({ position_m: [1, 1, 1], rotation: QUARTER }, 2)[0][1], [1, 3, 1]);
    const lines = frustumOf({ position_m: [0, 0, 0], rotation: [0, 0, 0, 1] }, 2);
    expect(lines.slice(0, 4).every(([, corner]) => corner[2] === 2)).toBe(true);
    expect(lines.at(-1)![1][1]).toBeLessThan(Math.min(...lines.slice(0, 4).map(([, corner]) => corner[1])));
  });
});

describe("a node's place", () => {
  it("is scaled, turned, moved, and carried by what is above", () => {
    const values: Record<string, unknown> = { translation: [1, 2, 3], rotation: QUARTER, scale: [2, 1, 1] };
    const m = localMatrix((key) => values[key] ?? null);
    close(transformed(m, [1, 0, 0]), [1, 4, 3]);
    close(transformed(times(m, m), [0, 0, 0]), transformed(m, transformed(m, [0, 0, 0])));
    expect(boxOf(IDENTITY, 1)).toHaveLength(12);
  });
  it.each([[[1, 2]], ["1,2,3"], [[1, 2, Number.NaN]], [null]])("%j is no translation", (value) =>
    expect(localMatrix((key) => (key === "translation" ? value : null))).toEqual(IDENTITY),
  );
});

const id = (n: number) => new Uint8Array(16).fill(n);
const anchor = (n: number, position_m: Vector, rotation?: Rotation) =>
  completeHeld({ anchor: { id: id(n), level: 0, position_m, ...(rotation ? { rotation } : {}) }, owner: 7, version: 1, quality: 0.5 });

describe("the pose graph", () => {
  const held = new Map(
    [anchor(1, [0, 0, 0], QUARTER), anchor(2, [0, 4, 0], QUARTER), anchor(3, [9, 9, 0])].map((one) => [hexOf(one.anchor.id), one]),
  );
  const from = (position_m: Vector) => completeObservation({ id: id(2), seen_from: id(1), position_m });
  it("judges an observation in the frame of the anchor it was made from, within three standard deviations of all that is unsure", () => {
    const gate = 3 * Math.sqrt(3 * 0.05 ** 2);
    for (const [off, agrees] of [
      [0, true],
      [gate - 1e-6, true],
      [gate + 1e-6, false],
    ] as const) {
      const judged = judge(from([4 + off, 0, 0]), held.get(hexOf(id(2)))!, held.get(hexOf(id(1))));
      expect(judged.agrees).toBe(agrees);
      close(judged.at.position_m, [0, 4 + off, 0]);
    }
    expect(judge(completeObservation({ id: id(2), position_m: [0, 4, 0] }), held.get(hexOf(id(2)))!, undefined).agrees).toBe(false); // a quarter turn off
  });
  it("has of an anchor what was seen of it and from it, the worst first, and nothing of others", () => {
    const graph = { held, seen: [from([4, 0, 0]), from([9, 0, 0]), completeObservation({ id: id(3), position_m: [9, 9, 0] })] };
    expect(graphOf(graph, hexOf(id(1))).map((one) => one.agrees)).toEqual([false, true]);
    expect(graphOf(graph, hexOf(id(2)))).toHaveLength(2);
    expect(graphOf(graph, hexOf(id(3)))).toHaveLength(1);
  });
});

describe("circles over a level", () => {
  it.each([
    [{ x0: 0, y0: 0, x1: 150, y1: 80 }, 1],
    [{ x0: -300, y0: 0, x1: 500, y1: 500 }, 6],
  ])("%j takes %i, and every place lies in one", (b, n) => {
    const { centres, whole } = circlesOver(b);
    expect([centres.length, whole]).toEqual([n, true]);
    for (let i = 0; i <= 20; i++) {
      for (let j = 0; j <= 20; j++) {
        const [x, y] = [b.x0 + ((b.x1 - b.x0) * i) / 20, b.y0 + ((b.y1 - b.y0) * j) / 20];
        expect(Math.min(...centres.map(([cx, cy]) => Math.hypot(cx - x, cy - y)))).toBeLessThanOrEqual(200);
      }
    }
  });
  it("is not whole where a level is too large", () => {
    const { centres, whole } = circlesOver({ x0: 0, y0: 0, x1: 4700, y1: 4700 });
    expect([centres.length, whole, centres[0]]).toEqual([25, false, [2350, 2350]]);
  });
});

describe("a scene's nodes", () => {
  const op = (client: string, seq: number, kind: number, more: Partial<Op>): Op => ({
    client,
    seq,
    stamp: BigInt(seq),
    context: new Map(),
    kind,
    node: dotOf(client, seq),
    parent: ROOT,
    order: Uint8Array.of(seq),
    key: "",
    value: null,
    nodes: [],
    ...more,
  });
  it("stand where those above put them, and have a name", () => {
    const scene = new SceneReplica();
    const top = dotOf("a", 1);
    scene.take([
      op("a", 1, CREATE, {}),
      op("a", 2, CREATE, { parent: top }),
      op("a", 3, SET, { node: top, key: "translation", value: [10, 0, 1] }),
      op("a", 4, SET, { node: top, key: "rotation", value: QUARTER }),
      op("a", 5, SET, { node: dotOf("a", 2), key: "translation", value: [2, 0, 0] }),
      op("a", 6, SET, { node: top, key: "name", value: "Stage" }),
    ]);
    const { nodes } = sceneNodes(scene);
    expect(nodes.map((row) => [row.name, row.depth])).toEqual([
      ["Stage", 0],
      ["a #2", 1],
    ]);
    close(nodes[1]!.at, [10, 2, 1]);
    expect(lostText({ node: top, what: "move", client: "b", stamp: 1n, value: top }, scene)).toContain("Stage");
  });
  it("have values that read as text", () => {
    expect(valueText({ a: Uint8Array.of(1, 255), b: 3n })).toBe('{"a":"0x01ff","b":"3"}');
    expect(valueText("x".repeat(500))).toHaveLength(201);
  });
});

const file = (head: string, body: ArrayBuffer | string) => {
  const start = new TextEncoder().encode(head);
  const rest = typeof body === "string" ? new TextEncoder().encode(body) : new Uint8Array(body);
  const whole = new Uint8Array(start.length + rest.length);
  whole.set(start);
  whole.set(rest, start.length);
  return whole.buffer;
};
const ASCII = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\nend_header\n";

describe("a cloud from a file", () => {
  it("is read from text and from bytes", () => {
    expect([...readPly(file(ASCII, "1 2 3 255\n4 5 6 0\n"))]).toEqual([1, 2, 3, 4, 5, 6]);
    const body = new DataView(new ArrayBuffer(2 * 13));
    for (let i = 0; i < 2; i++) for (let k = 0; k < 3; k++) body.setFloat32(13 * i + 1 + 4 * k, 3 * i + k + 1, true);
    const head =
      "ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty uchar red\nproperty float x\nproperty float y\nproperty float z\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n";
    expect([...readPly(file(head, body.buffer))]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(() => readPly(file(head, body.buffer.slice(0, 20)))).toThrow(/cut off/);
  });
  it.each([
    ["solid", /no .ply file/],
    [ASCII.replace("ascii", "binary_big_endian"), /must be ascii or binary_little_endian/],
    [ASCII.replace("float z", "float w"), /must have x, y and z/],
    [ASCII.replace("vertex", "face"), /must be `vertex`/],
  ])("%j is refused", (head, why) => expect(() => readPly(file(head, "1 2 3 4\n1 2 3 4\n"))).toThrow(why));
  it("is thinned to what a message takes, one point of each 5 cm, and holes are left out", () => {
    const two = thinned(Float64Array.of(1.001, 2.001, 3.001, 1.002, 2.002, 3.002, 0, 0, 0, Number.NaN, 1, 1, -1, 0, 2), 16_384);
    expect([...new Int16Array(two.buffer)]).toEqual([1001, 2001, 3001, -1000, 0, 2000]);
    const many = Float64Array.from({ length: 60_000 }, (_, i) => ((i * 7919 + i * i * 104_729) % 4001) / 1000);
    const all = thinned(many, 4 * 2 ** 20).length / 6;
    for (const bytes of [16_384, 65_536]) {
      const n = thinned(many, bytes).length / 6;
      expect(n).toBeLessThanOrEqual(bytes / 6);
      expect(n).toBeGreaterThan(Math.min(all, 0.8 * (bytes / 6)) - 1);
    }
    expect(() => thinned(Float64Array.of(0, 0, 0, 100, 0, 0), 16_384)).toThrow(/metres/);
  });
});

/** A glTF file of one triangle that is 2 m high: y up, `extra` beside it. */
function triangle(extra: object = {}): ArrayBuffer {
  const data = new Uint8Array(42);
  new Float32Array(data.buffer, 0, 9).set([0, 0, 0, 1, 0, 0, 0, 2, 0]);
  data.set([0, 0, 1, 0, 2, 0], 36);
  const gltf = {
    asset: { version: "2.0" },
    buffers: [{ byteLength: 42, uri: `data:application/octet-stream;base64,${Buffer.from(data).toString("base64")}` }],
    bufferViews: [
      { buffer: 0, byteLength: 36 },
      { buffer: 0, byteOffset: 36, byteLength: 6 },
    ],
    accessors: [
      { bufferView: 0, componentType: 5126, count: 3, type: "VEC3" },
      { bufferView: 1, componentType: 5123, count: 3, type: "SCALAR" },
    ],
    materials: [{ pbrMetallicRoughness: { baseColorFactor: [1, 0.5, 0, 1] } }],
    meshes: [{ primitives: [{ attributes: { POSITION: 0 }, indices: 1, material: 0 }] }],
    nodes: [{ mesh: 0, translation: [0, 0, 3] }],
    scenes: [{ nodes: [0] }],
    scene: 0,
    ...extra,
  };
  return new TextEncoder().encode(JSON.stringify(gltf)).buffer as ArrayBuffer;
}

describe("the mesh of an asset", () => {
  const sha = "ab".repeat(32);
  it("is named by a node's properties, where they fit", () => {
    const of = (asset: unknown, mesh?: unknown) => meshNameOf((key) => ({ asset, mesh })[key] ?? null);
    expect(of(sha, 2)).toEqual({ asset: sha, mesh: 2 });
    expect(of(sha, -1)).toEqual({ asset: sha, mesh: undefined });
    expect(of("../x")).toBeUndefined();
  });
  it("has its triangles as they are, and the whole file stands upright", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new Error("the page's policy lets nothing fetch a data: address")));
    const alone = await readMesh(triangle(), 0);
    expect([...alone.positions]).toEqual([0, 0, 0, 1, 0, 0, 0, 2, 0]);
    expect([...alone.normals.slice(0, 3)]).toEqual([0, 0, 1]);
    expect([...alone.colours.slice(0, 4)]).toEqual([1, 0.5, 0, 1]);
    const whole = await readMesh(triangle(), undefined);
    close([...whole.positions.slice(6, 9)], [0, -3, 2]);
    vi.unstubAllGlobals();
  });
  it.each([
    ["buffers elsewhere", triangle({ buffers: [{ byteLength: 42, uri: "https://example.com/a.bin" }] }), 0, "other files"],
    ["no such mesh", triangle(), 5, "mesh 5 of 1"],
    ["an extension", triangle({ extensionsRequired: ["KHR_draco_mesh_compression"] }), 0, "KHR_draco"],
    ["no glTF", new TextEncoder().encode("lamp").buffer as ArrayBuffer, 0, "no glTF"],
    ["a node below itself", triangle({ nodes: [{ children: [0] }] }), undefined, "below themselves"],
    ["too large", new ArrayBuffer(MAX_MESH_BYTES + 1), 0, "at most"],
  ])("is refused: %s", async (_, bytes, mesh, says) => {
    await expect(readMesh(bytes, mesh)).rejects.toThrow(says);
  });
  it("is fetched once a file, and a failure is kept", async () => {
    const asked: string[] = [];
    const shelf = new MeshShelf("demo", async (asset) => {
      asked.push(asset);
      if (asset !== sha) throw new Error("gone");
      return triangle();
    });
    const names = [
      { asset: sha, mesh: 0 },
      { asset: sha, mesh: undefined },
      { asset: "cd".repeat(32), mesh: 0 },
    ];
    shelf.want(names);
    shelf.want(names);
    await expect.poll(() => shelf.meshes.value.size).toBe(3);
    shelf.want(names);
    expect(asked).toEqual([sha, "cd".repeat(32)]);
    expect((shelf.meshes.value.get(meshKey(names[1]!)) as Mesh).indices).toHaveLength(3);
    expect((shelf.meshes.value.get(meshKey(names[2]!)) as RangeError).message).toBe("gone");
  });
});
