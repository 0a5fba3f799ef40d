/** The page's reader of scenes against what `ar/scene.py` shows of the same operations: test/scenes.json is written by tests/ar/make_console_scenes.py. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { SceneReplica, sameValue } from "../src/ar/scene";
import { decodeOps, ROOT } from "../src/ar/scene_ops";

type Case = {
  name: string;
  snapshot?: string;
  batches: string[];
  seen: Record<string, number>;
  children: Record<string, string[]>;
  properties: Record<string, Record<string, unknown>>;
  conflicts: [string, string, string, string, unknown][];
};
const cases = JSON.parse(readFileSync(fileURLToPath(new URL("scenes.json", import.meta.url)), "utf8")) as Case[];
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));

function shown(scene: SceneReplica) {
  const nodes = [...scene.nodes()].map((one) => one.node);
  return {
    seen: Object.fromEntries(scene.seen),
    children: Object.fromEntries([ROOT, ...nodes].map((node) => [node, scene.children(node)]).filter(([, row]) => row!.length > 0)),
    properties: Object.fromEntries(
      nodes.map((node) => [node, Object.fromEntries(scene.properties(node))]).filter(([, p]) => Object.keys(p!).length > 0),
    ),
    conflicts: scene.conflicts().map((one) => [one.node, one.what, one.client, String(one.stamp), one.value]),
  };
}

describe("a scene read in the page", () => {
  it.each(cases.filter((one) => one.snapshot === undefined))("$name shows what the server shows", ({ name: _, batches, ...expected }) => {
    const scene = new SceneReplica();
    for (const batch of batches) expect(scene.take(decodeOps(bytes(batch)))).toBe(true);
    expect(shown(scene)).toEqual(expected);
  });
  it.each(cases.filter((one) => one.snapshot !== undefined))(
    "$name is read from it, and goes on from there",
    ({ snapshot, batches, name: _, ...expected }) => {
      const scene = SceneReplica.of(bytes(snapshot!));
      for (const batch of batches) expect(scene.take(decodeOps(bytes(batch)))).toBe(true);
      expect(shown(scene)).toEqual(expected);
    },
  );
  it("is the same whatever comes twice", () => {
    const { name: _, batches, ...expected } = cases[0]!;
    const scene = new SceneReplica();
    const ops = decodeOps(bytes(batches[0]!));
    scene.take(ops.slice(0, 20));
    scene.take(ops);
    scene.take(ops);
    expect(shown(scene)).toEqual(expected);
  });
  it("says that a sync is due where something is missing, and takes nothing from there on", () => {
    const ops = decodeOps(bytes(cases[0]!.batches[0]!));
    const scene = new SceneReplica();
    expect(scene.take(ops.slice(1))).toBe(false);
    expect(scene.seen.size).toBe(0);
  });
  it.each([
    ["", "short"],
    ["e502000000", "another version"],
    [`${cases[0]!.batches[0]!}00`, "a byte too many"],
    [cases[0]!.batches[0]!.slice(0, -2), "cut off"],
  ])("%# is refused: %s", (hex) => expect(() => decodeOps(bytes(hex))).toThrow(RangeError));
  it("tells values apart by what is in them", () => {
    expect(sameValue({ a: [1, new Uint8Array([1])], b: null }, { b: null, a: [1, new Uint8Array([1])] })).toBe(true);
    expect(sameValue({ a: undefined }, { b: undefined })).toBe(false);
    expect(sameValue([1, 2], [1, 3])).toBe(false);
  });
});
