"""Random schedules of clients that edit one scene apart: the driver of the convergence tests, and a slow twin of the tree."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ar.scene import Lost, Scene
from ar.scene_ops import COLLECT, MOVE, ROOT, TRASH, Dot, Op, decode, encode
from esplanade.core.errors import Conflict, InvalidInput

START_MS = 1_700_000_000_000


def run(seed: int, *, clients: int = 5, steps: int = 60, collecting: bool = False) -> list[Scene]:
    """Edit, partition, deliver late, twice and out of order; then heal. Returns the replicas, the authority ("server") first."""
    chance = random.Random(seed)
    scenes = [Scene("server"), *(Scene(f"c{i}") for i in range(1, clients))]
    skew = [chance.randrange(-20_000, 20_000) for _ in scenes]
    post: list[tuple[int, bytes]] = []
    now = START_MS
    for _ in range(6):  # a tree that all have, so that their moves cross
        nodes = list(scenes[0].nodes())
        scenes[0].create(chance.choice([ROOT, *nodes]), now_ms=now)
    for scene in scenes[1:]:
        scene.merge(scenes[0].delta({}), now_ms=now + 60_000)
    for _ in range(steps):
        now += chance.randrange(0, 50)
        i = chance.randrange(clients)
        roll = chance.random()
        if roll < 0.8:
            _edit(scenes[i], chance, now + skew[i])
        elif roll < 0.92:
            j = chance.randrange(clients)
            post.append((j, scenes[i].delta({} if chance.random() < 0.1 and not collecting else scenes[j].ack().seen)))
        elif post:
            j, data = post[chance.randrange(len(post))] if chance.random() < 0.3 else post.pop(chance.randrange(len(post)))
            scenes[j].merge(data, now_ms=now + 60_000)
        if collecting and chance.random() < 0.1:
            scenes[0].collect({s.client: s.ack() for s in scenes}, now_ms=now)
            for other in scenes[1:]:
                if chance.random() < 0.5:
                    other.merge(scenes[0].delta(other.ack().seen), now_ms=now + 60_000)
    for _ in range(3):
        for a in scenes:
            for b in scenes:
                if a is not b:
                    b.merge(a.delta(b.ack().seen), now_ms=now + 60_000)
    return scenes


KNOWN_MS = 20_000


@dataclass
class Star:
    """How a schedule with a server went: the replicas, the server first; how many nodes it forgot, how often a replica was renewed, and what that found no place for."""

    scenes: list[Scene]
    forgotten: int = 0
    renewed: int = 0
    lost: list[Lost] = field(default_factory=list)


def run_star(seed: int, *, clients: int = 5, steps: int = 120) -> Star:
    """Clients that meet through the server alone, which forgets what those of the last KNOWN_MS have seen deleted; some are away for longer, editing. Then all come back."""
    chance = random.Random(seed)
    server = Scene("server")
    star = Star([server, *(Scene(f"{i}:phone") for i in range(1, clients))])
    skew = [chance.randrange(-2_000, 2_000) for _ in star.scenes]
    away = [0] * clients
    now = START_MS
    for step in range(steps):
        now += chance.randrange(0, 4_000)
        i = chance.randrange(1, clients)
        if step and chance.random() < 0.02:
            away[i] = now + chance.randrange(5_000, 4 * KNOWN_MS)
        for _ in range(chance.randrange(1, 4)):
            _edit(star.scenes[i], chance, now + skew[i])
        if now >= away[i] and (step == 0 or chance.random() < 0.6):
            _meet(star, star.scenes[i], chance, now, skew[i])
        if chance.random() < 0.05:
            star.scenes[0] = Scene.load("server", star.scenes[0].snapshot())  # started again: what it heard is gone
    for _ in range(3):
        for i in range(1, clients):
            _meet(star, star.scenes[i], chance, now, skew[i], last=True)
    return star


def _meet(star: Star, replica: Scene, chance: random.Random, now: int, skew: int, *, last: bool = False) -> None:
    """A sync as the server answers it, cut off now and then, except at the last."""
    server = star.scenes[0]
    while True:
        try:
            delta = server.delta(replica.ack().seen)
            server.hear(replica.client, dict(replica.ack().seen))
            tidy = [] if last else server.tidying(now_ms=now, known_ms=KNOWN_MS)
            star.forgotten += sum(len(op.nodes) for op in tidy)
            if tidy:
                server.merge(encode(tidy), now_ms=now)
            if not last and chance.random() < 0.05:
                return
            replica.merge(delta, now_ms=now + skew)
            own = replica.delta(dict(replica.ack().seen) | {replica.client: server.ack().seen.get(replica.client, 0)})
            server.merge(own, now_ms=now, author=replica.client)
            return
        except Conflict:
            authored = replica.ack().seen.get(replica.client, 0)
            star.lost += replica.rebase(server.snapshot(), now_ms=now + skew)
            star.renewed += 1
            assert replica.ack().seen.get(replica.client, 0) == authored


def _edit(scene: Scene, chance: random.Random, now_ms: int) -> None:
    nodes = list(scene.nodes())
    roll = chance.random()
    if not nodes or (roll < 0.3 and len(nodes) < 8):
        scene.create(chance.choice([ROOT, *nodes]), now_ms=now_ms, last=chance.random() < 0.5)
    elif roll < 0.6:
        try:
            scene.move(chance.choice(nodes), chance.choice([ROOT, *nodes]), now_ms=now_ms)
        except InvalidInput:
            return  # below itself: refused at its author
    elif roll < 0.66:
        scene.delete(chance.choice(nodes), now_ms=now_ms)
    elif roll < 0.93:
        scene.set(chance.choice(nodes), chance.choice(["transform", "asset", "light.colour"]), chance.randrange(1000), now_ms=now_ms)
    else:
        try:
            (scene.undo if chance.random() < 0.7 else scene.redo)(now_ms=now_ms)
        except Conflict:
            return  # changed since by another: refused at its author


def twin(ops: list[Op]) -> dict[Dot, tuple[Dot, Op]]:
    """Parent and last effective move of every node, from all operations done once in rank order: the definition, without undoing."""
    tree: dict[Dot, tuple[Dot, Op]] = {}
    for op in sorted((o for o in ops if o.kind <= MOVE), key=Op.rank):
        here, cycle = op.parent, False
        while here in tree or here == op.node:
            if here == op.node:
                cycle = True
                break
            here = tree[here][0]
        if not cycle:
            tree[op.node] = (op.parent, op)
    return tree


def faults(scenes: list[Scene]) -> list[str]:
    """What is wrong with replicas that have met: divergence, cycles, lost subtrees; empty where nothing is."""
    found = []
    if len({scene.digest() for scene in scenes}) != 1:
        found.append("digests differ")
    if len({str(scene.conflicts()) for scene in scenes}) != 1:
        found.append("conflicts differ")
    scene = scenes[0]
    if scene.ack().seen != scenes[-1].ack().seen:
        found.append("versions differ")
    shown = set(scene.nodes())
    if len(shown) != len(list(scene.nodes())):
        found.append("a node shows twice")
    try:
        ops = decode(scene.delta({}))
    except Conflict:
        return found  # some were forgotten: the twin cannot know the whole
    if any(op.kind == COLLECT for op in ops):
        return found
    tree = twin(ops)
    for node, (parent, _) in tree.items():
        seen = [node]
        while parent not in (ROOT, TRASH):
            if parent in seen:
                found.append(f"cycle at {node}")
                break
            seen.append(parent)
            parent = tree[parent][0]
        else:
            if parent == ROOT and (node not in shown or scene.parent(node) != tree[node][0]):
                found.append(f"{node} is not where the definition puts it")
            if parent == TRASH and node not in shown:
                deletion = tree[seen[-1]][1]
                if any(not deletion.saw(tree[n][1].dot) for n in seen[:-1]):
                    found.append(f"{node} was lost in a subtree whose deleter had not seen it there")
    return found
